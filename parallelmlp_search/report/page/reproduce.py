"""Facts by which a run can be repeated: command, versions, machine."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parallelmlp_search.search.run.messages import counted

OPTIONS: Mapping[str, str] = {
    "n_trials": "--trials",
    "time_limit": "--time-limit",
    "max_epochs": "--max-epochs",
    "memory_limit": "--memory-limit",
    "infer_limit": "--latency",
    "infer_batch_size": "--batch",
    "metric": "--metric",
    "loss": "--loss",
    "sampler": "--sampler",
    "device": "--device",
    "precision": "--precision",
    "n_folds": "--folds",
    "n_finalists": "--finalists",
    "calibration": "--calibration",
}
"""Options of `pmlp search` by setting; they are left out at their default."""

FLAGS: Mapping[str, tuple[bool, str]] = {
    "tune_thresholds": (True, "--no-tune-thresholds"),
    "baselines": (True, "--no-baselines"),
    "refit": (False, "--refit"),
}
"""Default and option of settings that are on or off."""

DEFAULTS: Mapping[str, Any] = {
    "sampler": "random",
    "device": "auto",
    "precision": "ieee",
    "calibration": "auto",
    "infer_batch_size": 1000,
}

ROLES: Mapping[str, str] = {
    "sheet": "--sheet",
    "database": "--from",
    "task": "--task",
    "groups": "--groups",
    "time_column": "--time-column",
    "weights": "--weights",
    "class_weight": "--class-weight",
}


def search_command(info: Mapping[str, Any], run: str) -> str | None:
    """Return the command that repeats a run.

    Parameters
    ----------
    info
        Content of ``run.json``.
    run
        Path of the run, which holds a copy of a table from standard input.

    Returns
    -------
    str or None
        None for a run that was not started by ``pmlp search``.
    """
    source, settings = info.get("source"), info.get("settings") or {}
    if not source or not source.get("data") or not source.get("target"):
        return None
    data = source.get("query") or Path(run, source["data"])  # an absolute path replaces the folder
    words = ["pmlp", "search", str(data), "--target", str(source["target"])]
    for name, option in ROLES.items():
        if source.get(name) is not None:
            words += [option, str(source[name])]
    for name, kind in json.loads(source.get("columns") or "{}").items():
        words += ["--columns", f"{kind}={name}"]
    signs = settings.get("monotonic") or {}
    for name, sign in signs.items():
        words += ["--monotonic", f"{name}={sign:+d}"]
    if (space := _space_name(settings.get("search_space"), limited=bool(signs))) != "default":
        words += ["--space", space]
    for name, option in OPTIONS.items():
        value = settings.get(name)
        if value is not None and value != DEFAULTS.get(name):
            words += [option, f"{value:g}" if isinstance(value, float) else str(value)]
    words += _cost_options(settings.get("costs"))
    for name, (default, option) in FLAGS.items():
        if settings.get(name, default) != default:
            words.append(option)
    words += ["--seed", str(settings.get("seed", 0))]
    return shlex.join(words)


def _cost_options(costs: Mapping[str, Any] | None) -> list[str]:
    """Options of stored costs."""
    if costs is None:
        return []
    if costs["order"] is not None:
        return ["--ordinal", ",".join(costs["order"]) or "auto"]
    return ["--costs", ",".join(f"{true}:{predicted}={cost:g}" for true, predicted, cost in costs["pairs"])]


def _space_name(stored: Any, *, limited: bool) -> str:
    """Name of the preset that a stored search space is; ``SPACE.json`` for any other.

    With ``limited`` it was limited to networks that can be monotone.
    """
    from parallelmlp_search.search.problem.target_transforms import TARGET_TRANSFORM
    from parallelmlp_search.space import SearchSpace, monotone_space
    from parallelmlp_search.space.presets import PRESETS

    # the default space tries target transformations where they suit the target
    plain = {name: one for name, one in (stored or {}).items() if name != TARGET_TRANSFORM}
    for name in PRESETS:
        if limited and name == "deep":  # all of whose networks normalize layers
            continue
        space = SearchSpace.preset(name)
        if (monotone_space(space) if limited else space).to_dict() in (
            stored,
            plain if name == "default" else None,
        ):
            return name
    return "SPACE.json"


def _machine_text(machine: Mapping[str, Any]) -> str:
    """System, processor and cores in words."""
    if not machine:
        return "not recorded"
    count = [counted(machine["cores"], "core")] if machine.get("cores") else []
    return ", ".join([*count, *(str(machine[name]) for name in ("processor", "system") if machine.get(name))])


def peak_memory(info: Mapping[str, Any]) -> str:
    """Return the largest memory of a run in words; an empty text if it was not measured."""
    peak = (info.get("memory") or {}).get("peak")
    return f"{peak / 1e6:,.0f} MB" if peak else ""


def facts(info: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return pairs of a name and a text on versions, seed, data and machine of a run.

    Parameters
    ----------
    info
        Content of ``run.json``.

    Returns
    -------
    list of (str, str)
    """
    settings, machine = info.get("settings") or {}, info.get("machine") or {}
    found = [
        ("started", str(info.get("created") or "unknown").replace("T", " ").replace("+00:00", " UTC")),
        ("seed", str(settings.get("seed", 0))),
        ("versions", ", ".join(f"{name} {text}" for name, text in (info.get("versions") or {}).items())),
        ("machine", _machine_text(machine)),
        ("training", f"compiled loops for {path}" if (path := info.get("training_path")) else "not recorded"),
        ("data", f"fingerprint {str(info.get('fingerprint'))[:16]}"),
    ]
    if peak := peak_memory(info):
        found.append(("peak memory", peak))
    return found
