"""Entry of the program. Imports nothing heavy, so that Ctrl-C is handled before everything else."""

from __future__ import annotations

from parallelmlp_search.cli.interrupts import handle_interrupts


def main() -> None:
    """Run ``pmlp`` and exit with its exit code."""
    handle_interrupts()
    from parallelmlp_search.cli import app

    app.main()
