"""Settings that all tests share."""

from __future__ import annotations

import os

from hypothesis import settings

# Small tensors gain nothing from several threads, and threads of several processes stand in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples in every run, so that a clone passes or fails once and for all; no deadline, since the
# first call of a function may import torch and machines are shared.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")
