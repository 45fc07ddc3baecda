"""Command reference: the commands of ``pmlp`` with their arguments and options, from the program itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer.main

from parallelmlp_search.cli.app import app


def command_reference() -> str:
    """Return one section per command: its purpose, its call, and tables of arguments and options."""
    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    return "\n\n".join("\n".join(_section(name, command)) for name, command in commands.items())


def _section(name: str, command: Any) -> Iterator[str]:
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option"]
    call = " ".join(_argument(one) for one in arguments)
    yield from (f"## pmlp {name}", "", command.help, "")
    yield from ("```text", f"pmlp {name} [OPTIONS] {call}".rstrip(), "```", "")
    if arguments:
        yield from ("| argument | meaning |", "|---|---|")
        yield from (f"| `{_argument(one)}` | {_cell(one.help)} |" for one in arguments)
        yield ""
    panels: dict[str, list[Any]] = {}
    for option in options:
        if "--help" not in option.opts:
            panels.setdefault(option.rich_help_panel or "Options", []).append(option)
    for panel, members in panels.items():
        defaults = [_default(one) for one in members]
        wide = any(defaults)  # a column for them only where there are some
        yield from (f"| {panel.lower()} | meaning |{' default |' * wide}", "|---|---|" + "---|" * wide)
        for one, default in zip(members, defaults, strict=True):
            yield f"| {_names(one)} | {_cell(one.help)} |" + f" {default} |" * wide
        yield ""


def _argument(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    return name if argument.required else f"[{name}]"


def _names(option: Any) -> str:
    metavar = "" if option.is_flag else f" {option.metavar or option.type.name.upper()}"
    names = [f"`{name}{metavar}`" for name in (*option.opts, *option.secondary_opts)]
    return ", ".join(names).replace("|", "\\|") + (" (required)" if option.required else "")


def _default(option: Any) -> str:
    if option.required or option.default is None or option.show_default is False or option.default == []:
        return ""
    if option.is_flag:
        if not option.secondary_opts:
            return ""
        return f"`{(option.opts if option.default else option.secondary_opts)[0]}`"
    return f"`{option.default}`"


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|").replace("\n", " ").replace("*", "\\*").replace("<", "&lt;")
