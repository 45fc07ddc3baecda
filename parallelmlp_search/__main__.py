"""``python -m parallelmlp_search`` is ``pmlp``."""

from parallelmlp_search.cli.app import main

main()
