"""The command line interface ``pmlp``."""

from parallelmlp_search.cli.interrupts import handle_interrupts


def main() -> None:
    """Run ``pmlp`` and exit with its exit code."""
    handle_interrupts()
    from parallelmlp_search.cli import app

    app.main()


__all__ = ["main"]
