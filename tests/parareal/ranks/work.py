"""Run by ranks: works through a job, as ``parallelmlp_search.parareal.ranks.worker`` does. ``work.py JOB``"""

from __future__ import annotations

import os
import sys

from parallelmlp_search.parareal.ranks.worker import main

os.environ.update(globals().get("ENVIRONMENT", {}))  # of ranks that torchrun has not started
main(globals().get("ARGUMENTS", sys.argv[1:]))
