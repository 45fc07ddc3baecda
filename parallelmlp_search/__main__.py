"""Run ``pmlp`` as ``python -m parallelmlp_search``."""

import os
import sys
from contextlib import suppress

with suppress(OSError):  # the working directory may have been deleted
    # a folder beside the user's table, such as `numba`, is not the module of that name
    here = os.getcwd()
    if sys.path[:1] == [here] and not os.path.samefile(here, os.path.join(os.path.dirname(__file__), "..")):
        del sys.path[0]

from parallelmlp_search.cli import main

main()
