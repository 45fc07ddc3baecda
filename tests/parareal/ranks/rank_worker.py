"""Program of ranks that run a job, as ``parallelmlp_search.parareal.ranks.worker``. ``rank_worker.py JOB``"""

from __future__ import annotations

import os
import sys

from parallelmlp_search.parareal.ranks.worker import main

os.environ.update(globals().get("ENVIRONMENT", {}))  # of ranks without torchrun
main(globals().get("ARGUMENTS", sys.argv[1:]))
