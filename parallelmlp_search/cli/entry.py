"""Entry of the program. Imports nothing heavy, so that Ctrl-C is handled before everything else."""

from __future__ import annotations

import os

from parallelmlp_search.cli.interrupts import INTERRUPTED, handle_interrupts


def main() -> None:
    """Run ``pmlp`` and exit with its exit code."""
    try:
        handle_interrupts()
        from parallelmlp_search.cli import app

        app.main()
    except KeyboardInterrupt:  # between the imports and the command
        os.write(2, b"interrupted\n")
        os._exit(INTERRUPTED)
