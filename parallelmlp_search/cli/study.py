"""Command ``pmlp study``."""

from __future__ import annotations

from typing import Annotated

import typer

from parallelmlp_search.cli.options import Json, RunPath
from parallelmlp_search.cli.terminal import terminal


def study(
    run: RunPath,
    storage: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="Optuna storage of the study: sqlite:///FILE, journal:FILE, ...",
            show_default=False,
        ),
    ],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the study. Default: name of the folder.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Copy a finished run to an Optuna study, for dashboards and plots; a partial copy is completed."""
    from parallelmlp_search.integrations.optuna import study_from_run
    from parallelmlp_search.search import RunDirectory
    from parallelmlp_search.search.proposals.optuna_sampler import quiet

    with quiet():
        made = study_from_run(RunDirectory.open(run), storage, study_name=name)
    n_trials = len(made.get_trials(deepcopy=False))
    screen = terminal()
    if as_json:
        screen.json({"study": made.study_name, "storage": storage, "trials": n_trials})
    else:
        screen.note(f"the study {made.study_name!r} in {storage} has {n_trials:,} trials")
