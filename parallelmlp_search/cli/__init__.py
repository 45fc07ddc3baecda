"""The command line interface ``pmlp``."""

from parallelmlp_search.cli.app import main

__all__ = ["main"]
