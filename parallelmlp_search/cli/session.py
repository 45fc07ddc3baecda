"""How every command ends: exit codes, one-sentence errors, quiet pipes, interrupts that keep the run."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from types import FrameType
from typing import Any, NoReturn, ParamSpec, TextIO

import typer
from rich.console import Console, RenderableType
from rich.text import Text
from typer.core import TyperGroup

from parallelmlp_search.exceptions import PMLPError, PMLPWarning, SearchFailedError, near_miss

__all__ = ["Commands", "Ending", "Terminal", "guarded", "terminal"]

FAILED, MISTAKE, INTERRUPTED = 1, 2, 130

PIPED_WIDTH = 120
"""Columns of a table that goes into a file or a pipe and has no terminal to fit into."""

Parameters = ParamSpec("Parameters")


class _PatientConsole(Console):
    """Goes quiet when its reader leaves (``| head``), instead of ending the program."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        _abandon(self.file)


class Terminal:
    """Standard output for results, standard error for everything else."""

    def __init__(self) -> None:
        piped = not sys.stdout.isatty() and "COLUMNS" not in os.environ
        self.out = _PatientConsole(width=PIPED_WIDTH if piped else None, highlight=False)
        self.err = _PatientConsole(stderr=True, highlight=False)
        self._shown: set[str] = set()

    def show(self, *renderables: RenderableType) -> None:
        """Print a result."""
        errors = getattr(sys.stdout, "errors", None)
        if errors == "strict":  # a terminal that lacks a character shows a question mark, and no traceback
            sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
        try:
            self.out.print(*renderables)
        finally:
            if errors == "strict":
                sys.stdout.reconfigure(errors="strict")  # type: ignore[union-attr]

    def line(self, text: str) -> None:
        """Print a result that must not be wrapped, such as a path."""
        self.out.print(Text(text), soft_wrap=True)

    def json(self, value: Any) -> None:
        """Print a result as JSON."""
        sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")

    def note(self, text: str) -> None:
        """Say something beside the results."""
        self.err.print(Text(text), soft_wrap=True)

    def error(self, message: str) -> None:
        """Say in a sentence what went wrong."""
        self.err.print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)

    def warning(self, message: str) -> None:
        """Show a warning of ours, once."""
        if message not in self._shown:
            self._shown.add(message)
            self.err.print(Text.assemble(("warning: ", "yellow"), message), soft_wrap=True)


_TERMINAL: ContextVar[Terminal] = ContextVar("terminal")


def terminal() -> Terminal:
    """The terminal of the command that is running."""
    return _TERMINAL.get()


def guarded(function: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """Let a command end as the exit codes promise.

    0: done. 1: the search failed. 2: the user's mistake, told in one sentence on standard error. 130:
    interrupted, by Ctrl-C or SIGTERM. What is none of these is a fault of ours and keeps its traceback.
    """

    @functools.wraps(function)
    def command(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        screen = Terminal()
        token = _TERMINAL.set(screen)
        _hush_tracker()
        try:
            with _our_warnings(screen), _terminable():
                function(*args, **kwargs)
                sys.stdout.flush()
        except BrokenPipeError:
            _abandon(sys.stdout)
        except KeyboardInterrupt as interrupt:
            screen.note(str(interrupt) or "interrupted")
            raise typer.Exit(INTERRUPTED) from None
        except SearchFailedError as error:
            screen.error(_sentence(error))
            raise typer.Exit(FAILED) from None
        except (PMLPError, OSError) as error:
            screen.error(_sentence(error))
            raise typer.Exit(MISTAKE) from None
        finally:
            _TERMINAL.reset(token)

    return command


class Commands(TyperGroup):
    """Tells a mistyped command line in one sentence."""

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
        try:
            code = run()
        except Exception as error:
            # typer has no public base class for mistakes on the command line; all of them have this method
            if not hasattr(error, "format_message"):
                raise
            Terminal().error(_usage_sentence(error))
            sys.exit(MISTAKE)
        sys.exit(code if isinstance(code, int) else 0)


class Ending:
    """Ends the program with an exit code, and quickly.

    Taking apart an interpreter that has loaded everything takes a second, which would count against a time
    limit and helps nobody. So the program ends as soon as all is done that was registered for the end later
    than this, which must therefore be made before the heavy imports. A program that fails with a
    traceback ends as ever.
    """

    def __init__(self) -> None:
        self._code: int | None = None
        atexit.register(self._end)

    def leave(self, code: int) -> NoReturn:
        """End the program, at once if it has failed while threads are still at work.

        A worker that is interrupted in the middle of a product cannot be stopped, and the interpreter, which
        would take its ground away, would crash with a code of its own.
        """
        self._code = code
        if code and threading.active_count() > 1:
            self._end()
        sys.exit(code)

    def _end(self) -> None:
        if self._code is not None:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            os._exit(self._code)


def _sentence(error: BaseException) -> str:
    """An error in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _usage_sentence(error: Any) -> str:
    context = getattr(error, "ctx", None)
    option = getattr(error, "option_name", None)
    if option is not None and type(error).__name__ == "NoSuchOption" and context is not None:
        known = [name for parameter in context.command.params for name in parameter.opts]
        message = f"{context.command_path} has no option {option}{near_miss(option, known)}"
    else:
        message = _sentence(RuntimeError(error.format_message())).rstrip(".")
        message = message[:1].lower() + message[1:]
    return message if context is None else f"{message} (see {context.command_path} --help)"


@contextlib.contextmanager
def _our_warnings(screen: Terminal) -> Iterator[None]:
    """Show the package's own warnings as one line each; all others stay as they are."""
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


def _hush_tracker() -> None:
    """Let joblib's tracker of files, a process of its own, tidy up after an interrupt without a warning."""
    option = "ignore:resource_tracker:UserWarning"
    if option not in sys.warnoptions:
        sys.warnoptions.append(option)  # it is started with the options of this interpreter


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Treat SIGTERM like Ctrl-C, so that a batch system's polite stop keeps the run in order too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _abandon(stream: Any) -> None:
    """Let what is still written to a stream without a reader vanish, at the interpreter's exit too."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
