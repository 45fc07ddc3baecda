"""Run ``pmlp`` as ``python -m parallelmlp_search``."""

from parallelmlp_search.cli.app import main

main()
