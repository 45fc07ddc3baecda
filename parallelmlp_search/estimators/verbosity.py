"""Progress and messages of ``fit``, by ``verbose``."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from numbers import Integral
from typing import TYPE_CHECKING, Any

from parallelmlp_search.exceptions import InvalidParameterError

if TYPE_CHECKING:
    from parallelmlp_search.search import Callback


def checked_verbose(verbose: Any) -> int:
    """Return ``verbose`` as an integer.

    Raises
    ------
    InvalidParameterError
        If it is negative or no whole number.
    """
    if not isinstance(verbose, Integral) or int(verbose) < 0:
        raise InvalidParameterError(f"verbose must be 0, 1 or 2, but got {verbose!r}")
    return int(verbose)


def shown_progress(stack: ExitStack, title: str, verbose: int) -> tuple[Callback, ...]:
    """Show progress and messages until a stack ends.

    Parameters
    ----------
    stack
        Ends the display.
    title
        Name of the estimator.
    verbose
        0 for nothing; 1 for progress: a block that is redrawn in a terminal or notebook, else a line per
        rung; 2 for progress and the messages of the logger ``parallelmlp_search``.

    Returns
    -------
    tuple of callbacks
    """
    if not verbose:
        return ()
    from rich.console import Console
    from rich.text import Text

    from parallelmlp_search.report import ConsoleReport
    from parallelmlp_search.report.notebook import NotebookReport, in_notebook

    if in_notebook():
        if verbose > 1:
            stack.enter_context(_messages(lambda line: print(line, file=sys.stderr)))
        return (stack.enter_context(NotebookReport(title)),)
    console = Console(stderr=True)
    report = ConsoleReport(console, title=title)
    if verbose > 1:
        # the console writes lines above the block
        stack.enter_context(_messages(lambda line: console.print(Text(line), soft_wrap=True)))
        if not report.is_live:  # its lines are among the messages
            return ()
    return (stack.enter_context(report),)


@contextmanager
def _messages(write: Callable[[str], object]) -> Iterator[None]:
    """Write the messages of our logger, with the seconds since the start; leave it as it was."""
    logger, started = logging.getLogger("parallelmlp_search"), time.time()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            write(f"{max(0.0, record.created - started):6.1f} s  {record.getMessage()}")

    handler, level = Handler(logging.INFO), logger.level
    logger.addHandler(handler)
    if not logger.isEnabledFor(logging.INFO):
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
