"""Output, errors and exit codes of the commands."""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ParamSpec, TextIO

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text
from typer.core import TyperGroup

from parallelmlp_search._memory import is_out_of_memory
from parallelmlp_search.cli.address_space import check_address_space
from parallelmlp_search.cli.interrupts import INTERRUPTED
from parallelmlp_search.exceptions import (
    InvalidParameterError,
    PMLPError,
    PMLPWarning,
    SearchFailedError,
    near_miss,
)

if TYPE_CHECKING:
    from rich.status import Status

FAILED, MISTAKE = 1, 2

PIPED_WIDTH = 120
"""Columns of a table that is written to a file or a pipe."""

Parameters = ParamSpec("Parameters")


_CONTROLS = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_])?|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)
"""Escape sequences and control characters except tabs and line ends."""


def printable(text: str) -> str:
    """Return a text without escape sequences; half a character becomes a question mark."""
    return _CONTROLS.sub("", text).encode(errors="replace").decode()


class _SafeConsole(Console):
    """Console that prints no escape sequences of names and files, and none after its reader has gone.

    Names of tables, columns and classes, and files of a run, can come from anyone. A reader such as ``head``
    closes the pipe early.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            is_safe = segment.control or segment.text.isprintable()
            yield segment if is_safe else Segment(printable(segment.text), segment.style)

    def on_broken_pipe(self) -> None:
        self.quiet = True
        _redirect_to_null(self.file)


class Terminal:
    """Standard output for results, standard error for everything else."""

    def __init__(self) -> None:
        piped = not sys.stdout.isatty() and "COLUMNS" not in os.environ
        self.out = _SafeConsole(width=PIPED_WIDTH if piped else None, highlight=False)
        self.err = _SafeConsole(stderr=True, highlight=False)
        self._shown: set[str] = set()
        self._status: Status | None = None

    def busy(self, doing: str | None) -> None:
        """Show what the command is doing, in a terminal; None or a result ends it."""
        if self._status is not None and doing is not None:
            self._status.update(Text(doing))
        elif self._status is not None:
            self._status.stop()
            self._status = None
        elif doing is not None and self.is_live:
            self._status = self.err.status(Text(doing))
            self._status.start()

    @property
    def is_live(self) -> bool:
        """True if standard error is a terminal that can redraw lines."""
        # FORCE_COLOR makes rich take a log file for a terminal, hence isatty
        return sys.stderr.isatty() and self.err.is_terminal and not self.err.is_dumb_terminal

    def show(self, *renderables: RenderableType) -> None:
        """Print a result."""
        self.busy(None)
        errors = getattr(sys.stdout, "errors", None)
        if errors == "strict":  # a character that the terminal lacks becomes a question mark, not a traceback
            sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
        try:
            self.out.print(*renderables)
        finally:
            if errors == "strict":
                sys.stdout.reconfigure(errors="strict")  # type: ignore[union-attr]

    def line(self, text: str) -> None:
        """Print a result on one line, without wrapping."""
        self.busy(None)
        self.out.print(Text(text), soft_wrap=True)

    def json(self, value: Any) -> None:
        """Print a result as JSON."""
        self.busy(None)
        sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")

    def note(self, text: str) -> None:
        """Print a message on standard error."""
        self.err.print(Text(text), soft_wrap=True)

    def error(self, message: str) -> None:
        """Print an error on standard error."""
        self.err.print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)

    def warning(self, message: str) -> None:
        """Print a warning on standard error, each one once."""
        if message not in self._shown:
            self._shown.add(message)
            self.err.print(Text.assemble(("warning: ", "yellow"), message), soft_wrap=True)


_TERMINAL: ContextVar[Terminal] = ContextVar("terminal")
_SAID_INTERRUPTED: ContextVar[bool] = ContextVar("said_interrupted", default=False)


def terminal() -> Terminal:
    """Return the terminal of the running command."""
    return _TERMINAL.get()


def guarded(function: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """Print errors of a command in one sentence, and exit with the code of their kind.

    0: success. 1: the search failed. 2: mistake of the user. 130: interrupted by Ctrl-C or SIGTERM. Other
    exceptions are bugs and keep their traceback.
    """

    @functools.wraps(function)
    def command(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        screen = Terminal()
        token = _TERMINAL.set(screen)
        _silence_resource_tracker()
        try:
            check_address_space()
            with _warnings_as_lines(screen):
                function(*args, **kwargs)
                sys.stdout.flush()
        except BrokenPipeError:
            _redirect_to_null(sys.stdout)
        except KeyboardInterrupt as interrupt:
            screen.note(str(interrupt) or "interrupted")
            _SAID_INTERRUPTED.set(True)
            raise typer.Exit(INTERRUPTED) from None
        except SearchFailedError as error:
            screen.error(_one_line(error))
            raise typer.Exit(FAILED) from None
        except InvalidParameterError as error:
            screen.error(_with_option(_one_line(error), inspect.signature(function).parameters))
            raise typer.Exit(MISTAKE) from None
        except (PMLPError, OSError) as error:
            screen.error(_one_line(error))
            raise typer.Exit(MISTAKE) from None
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            screen.error(f"the memory does not suffice ({_one_line(error)}): free some, or give fewer rows")
            raise typer.Exit(MISTAKE) from None
        finally:
            screen.busy(None)
            _TERMINAL.reset(token)

    return command


class CommandGroup(TyperGroup):
    """Group of commands that prints usage errors in one sentence."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command that the arguments name, and exit with its code."""
        run = functools.partial(
            super().main, args, prog_name, complete_var, False, windows_expand_args, **extra
        )
        if not standalone_mode:
            return run()
        _SAID_INTERRUPTED.set(False)
        try:
            code = run()
            # while arguments are parsed, newer versions of typer end with the code and without a message
            if code == INTERRUPTED and not _SAID_INTERRUPTED.get():
                Terminal().note("interrupted")
        except typer.Abort:
            Terminal().note("interrupted")
            sys.exit(INTERRUPTED)
        except Exception as error:
            # typer has no public base class of usage errors; all of them have this method
            if not hasattr(error, "format_message"):
                raise
            Terminal().error(_usage_error(error))
            sys.exit(MISTAKE)
        sys.exit(code if isinstance(code, int) else 0)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _with_option(message: str, options: Any) -> str:
    """Replace a parameter at the start of a message by its option: ``n_trials`` by ``--trials``."""
    first, _, rest = message.partition(" ")
    for name in (first, first.removeprefix("n_"), f"{first}s", first.replace("_matrix", "s")):
        if name in options:
            return f"--{name.replace('_', '-')} {rest}"
    return message


def _usage_error(error: Any) -> str:
    context = getattr(error, "ctx", None)
    option = getattr(error, "option_name", None)
    if option is not None and type(error).__name__ == "NoSuchOption" and context is not None:
        known = [name for parameter in context.command.params for name in parameter.opts]
        message = f"{context.command_path} has no option {option}{near_miss(option, known)}"
    else:
        message = _one_line(RuntimeError(error.format_message())).rstrip(".")
        message = message[:1].lower() + message[1:]
    return message if context is None else f"{message} (see {context.command_path} --help)"


@contextlib.contextmanager
def _warnings_as_lines(screen: Terminal) -> Iterator[None]:
    """Print the warnings of this package as one line each."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", PMLPWarning)
        others = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, PMLPWarning):
                screen.warning(" ".join(str(message).split()))
            else:
                others(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield


def _silence_resource_tracker() -> None:
    """Let joblib's resource tracker, a separate process, clean up after an interrupt without a warning."""
    option = "ignore:resource_tracker:UserWarning"
    if option not in sys.warnoptions:
        sys.warnoptions.append(option)  # the tracker inherits the options of this interpreter


def _redirect_to_null(stream: Any) -> None:
    """Discard all later output to a stream without a reader, also that of the interpreter's exit."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
