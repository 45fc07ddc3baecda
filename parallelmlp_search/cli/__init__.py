"""The command line interface ``pmlp``."""

from parallelmlp_search.cli.entry import main

__all__ = ["main"]
