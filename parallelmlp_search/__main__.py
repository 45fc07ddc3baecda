"""``python -m parallelmlp_search`` is ``pmlp``."""

from parallelmlp_search.cli import main

main()
