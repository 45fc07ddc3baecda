"""Settings that all tests share."""

from __future__ import annotations

from hypothesis import settings

# The same examples in every run, so that a clone passes or fails once and for all; no deadline, since the
# first call of a function may import torch and machines are shared.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")
