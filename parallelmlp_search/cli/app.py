"""The command ``pmlp``: search, predict, evaluate, leaderboard, show, resume, promote, info.

Nothing heavy is imported before a command needs it, so that ``pmlp --help`` answers at once.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from parallelmlp_search import __version__
from parallelmlp_search.cli.options import (
    BUDGET,
    DATA,
    HOW,
    OUTPUT,
    TOGETHER,
    Calibration,
    Jobs,
    Json,
    Quiet,
    Refit,
    RunPath,
    TablePath,
    TuneDecision,
)
from parallelmlp_search.cli.promote import promote
from parallelmlp_search.cli.session import Commands, Ending, guarded, terminal

__all__ = ["app", "main"]

app = typer.Typer(
    name="pmlp",
    cls=Commands,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _top(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Train thousands of MLPs at once on a table, rank them honestly, ensemble the best."""
    if version:
        typer.echo(f"pmlp {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit


@app.command()
@guarded
def search(
    data: TablePath,
    target: Annotated[
        str, typer.Option(metavar="COL", help="Column to predict.", rich_help_panel=DATA, show_default=False)
    ],
    task: Annotated[
        str | None,
        typer.Option(
            help="binary, multiclass, classification or regression; found out by default.",
            rich_help_panel=DATA,
        ),
    ] = None,
    groups: Annotated[
        str | None,
        typer.Option(
            metavar="COL", help="Rows with the same value here stay together.", rich_help_panel=DATA
        ),
    ] = None,
    time_column: Annotated[
        str | None,
        typer.Option(
            metavar="COL",
            help="Column that orders the rows in time; later rows judge earlier ones.",
            rich_help_panel=DATA,
        ),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(metavar="COL", help="Weight of each row.", rich_help_panel=DATA)
    ] = None,
    class_weight: Annotated[
        str | None,
        typer.Option(metavar="balanced", help="Let rare classes count as much.", rich_help_panel=DATA),
    ] = None,
    time_limit: Annotated[
        float | None, typer.Option(metavar="S", help="Seconds for everything.", rich_help_panel=BUDGET)
    ] = None,
    trials: Annotated[
        int | None, typer.Option(metavar="N", help="Configurations to train.", rich_help_panel=BUDGET)
    ] = None,
    max_epochs: Annotated[
        int | None, typer.Option(metavar="E", help="Epochs of full training.", rich_help_panel=BUDGET)
    ] = None,
    memory_limit: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Memory to use at most, such as 2GB.", rich_help_panel=BUDGET),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="What counts; by default roc_auc, log_loss or rmse, as the task is.", rich_help_panel=HOW
        ),
    ] = None,
    space: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE",
            help="paper, small, default, deep, or a YAML, TOML or JSON file.",
            rich_help_panel=HOW,
        ),
    ] = "default",
    folds: Annotated[
        int | None, typer.Option(metavar="S", help="Folds of the finalists.", rich_help_panel=HOW)
    ] = None,
    sampler: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="random, qmc or grid, then draws near the leaders; or Optuna's tpe, cmaes or gp.",
            rich_help_panel=HOW,
        ),
    ] = "random",
    start_from: Annotated[
        str | None,
        typer.Option(
            metavar="RUN|URL",
            help="Try the best of a finished run, or of a study, first.",
            rich_help_panel=HOW,
        ),
    ] = None,
    start_study: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The study at that URL; the only one by default.", rich_help_panel=HOW
        ),
    ] = None,
    tune_decision: TuneDecision = True,
    calibration: Calibration = "auto",
    refit: Refit = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", rich_help_panel=HOW)] = "auto",
    jobs: Jobs = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.", rich_help_panel=HOW)] = 0,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Share the trials through a storage of Optuna: sqlite:///FILE, journal:FILE, ...",
            rich_help_panel=TOGETHER,
        ),
    ] = None,
    study: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Study that all who search together name; --trials counts all of them.",
            rich_help_panel=TOGETHER,
        ),
    ] = None,
    screen_only: Annotated[
        bool,
        typer.Option(
            "--screen-only", help="Train trials for the study; make no model.", rich_help_panel=TOGETHER
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the run; runs/TABLE-TIME by default.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Search: train many networks on a table, rank them, keep the best ensemble."""
    started = time.monotonic()  # before the imports, which count against the time limit too
    from parallelmlp_search.cli.runs import contribute, initial, new_run, perform, sharing
    from parallelmlp_search.cli.tables import Source, parse_bytes
    from parallelmlp_search.search import SearchSettings
    from parallelmlp_search.space import SearchSpace

    source = Source(data, target, task, groups, time_column, weights, class_weight)
    search_space = SearchSpace.resolve(space)
    settings = SearchSettings(
        search_space=search_space,
        n_trials=trials,
        time_limit=time_limit,
        max_epochs=max_epochs,
        metric=metric,
        n_folds=folds,
        sampler=sampler,
        initial=initial(start_from, start_study, search_space),
        tune_thresholds=tune_decision,
        calibration=calibration,
        refit=refit,
        seed=seed,
        device=device,
        memory_limit=None if memory_limit is None else parse_bytes(memory_limit),
    )
    shared = sharing(storage, study, settings, screen_only=screen_only)
    if screen_only:
        contribute(source, settings, shared, jobs=jobs, started=started, as_json=as_json, quiet=quiet)
        return
    directory, problem = new_run(source, settings, output)
    if shared:
        directory.update(shared=shared)
    perform(directory, problem, settings, source, jobs=jobs, started=started, as_json=as_json, quiet=quiet)


@app.command()
@guarded
def resume(run: RunPath, jobs: Jobs = None, as_json: Json = False, quiet: Quiet = False) -> None:
    """Go on with a run that was interrupted; a finished one shows its summary."""
    started = time.monotonic()
    from parallelmlp_search.cli.runs import perform, show_outcome
    from parallelmlp_search.cli.tables import Source
    from parallelmlp_search.data import read_table
    from parallelmlp_search.search import RunDirectory

    directory = RunDirectory.open(run)
    info = directory.info()
    if info.get("status") == "finished":
        if not quiet:
            terminal().note(f"{run} has finished already")
        show_outcome(directory, as_json=as_json, quiet=quiet)
        return
    source = Source.of_run(info, run)
    settings = directory.settings()
    problem = source.problem(read_table(source.path(run)))
    perform(directory, problem, settings, source, jobs=jobs, started=started, as_json=as_json, quiet=quiet)


@app.command()
@guarded
def predict(
    run: RunPath,
    data: TablePath,
    output: Annotated[
        str,
        typer.Option(
            metavar="FILE", help="A .csv, .csv.gz, .parquet or .feather file, or - for standard output."
        ),
    ],
    proba: Annotated[bool, typer.Option("--proba", help="Probabilities, one column a class.")] = False,
) -> None:
    """Predict the rows of a table with the ensemble of a run."""
    from parallelmlp_search.cli.runs import target_of
    from parallelmlp_search.cli.tables import check_output, prediction_table, write_table
    from parallelmlp_search.data import read_table
    from parallelmlp_search.parareal.promotion.model import load_model
    from parallelmlp_search.search import RunDirectory

    check_output(output)
    directory = RunDirectory.open(run)
    model = load_model(directory)
    target = target_of(directory, model) or "prediction"
    write_table(prediction_table(model, read_table(data), target, proba=proba), output)


@app.command()
@guarded
def evaluate(run: RunPath, data: TablePath, as_json: Json = False) -> None:
    """Score the ensemble of a run on a table that holds the target."""
    from parallelmlp_search.cli import tables
    from parallelmlp_search.cli.runs import target_of
    from parallelmlp_search.data import read_table
    from parallelmlp_search.exceptions import RunDirectoryError
    from parallelmlp_search.parareal.promotion.model import load_model
    from parallelmlp_search.report import evaluation_table
    from parallelmlp_search.search import RunDirectory

    directory = RunDirectory.open(run)
    model, result = load_model(directory), directory.result()
    target = target_of(directory, model)
    if target is None:
        raise RunDirectoryError(f"the run in {str(run)!r} does not say which column is its target")
    weights = (directory.info().get("source") or {}).get("weights")
    scores = tables.evaluate(model, read_table(data), target, result["metric"], weights)
    evaluation = scores | model.treatment() | {"honest": tables.plain(result["honest"])}
    screen = terminal()
    if as_json:
        screen.json(evaluation)
    else:
        screen.show("", evaluation_table(evaluation), "")


@app.command()
@guarded
def leaderboard(
    run: RunPath,
    top: Annotated[int, typer.Option(metavar="N", min=0, help="Rows to show; 0 for all.")] = 20,
    as_json: Json = False,
) -> None:
    """Rank the networks of a run."""
    from parallelmlp_search.cli.tables import records
    from parallelmlp_search.report import leaderboard_table
    from parallelmlp_search.search import RunDirectory

    frame = RunDirectory.open(run).leaderboard()
    rows = records(frame.head(top) if top else frame)
    screen = terminal()
    if as_json:
        screen.json(rows)
        return
    screen.show(leaderboard_table(rows, width=screen.out.width))
    if len(rows) < len(frame):
        screen.note(f"{len(frame) - len(rows):,} more: pmlp leaderboard {run} --top 0")


@app.command()
@guarded
def show(
    run: RunPath,
    trial: Annotated[int, typer.Argument(metavar="TRIAL", help="Number of a trial.")],
    as_json: Json = False,
) -> None:
    """Show one network of a run: its configuration, and what each rung found."""
    from parallelmlp_search.cli.runs import trial_of
    from parallelmlp_search.report import trial_page
    from parallelmlp_search.search import RunDirectory

    found = trial_of(RunDirectory.open(run), trial)
    screen = terminal()
    if as_json:
        screen.json(found)
    else:
        screen.show(trial_page(found))


@app.command()
@guarded
def study(
    run: RunPath,
    storage: Annotated[
        str,
        typer.Option(
            metavar="URL", help="Where the study goes: sqlite:///FILE, journal:FILE, ...", show_default=False
        ),
    ],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the study; the folder's by default.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Copy a finished run into an Optuna study, for dashboards and plots."""
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
        screen.note(f"{n_trials:,} trials are now the study {made.study_name!r} in {storage}")


app.command()(guarded(promote))


@app.command()
@guarded
def info(as_json: Json = False) -> None:
    """Tell versions, cores, memory and devices, for a bug report."""
    from parallelmlp_search.cli.runs import environment
    from parallelmlp_search.report import environment_page

    found = environment()
    screen = terminal()
    if as_json:
        screen.json(found)
    else:
        screen.show(environment_page(found))


def main() -> None:
    """Run the command line and leave with its exit code."""
    ending = Ending()
    try:
        app(prog_name="pmlp")
    except SystemExit as end:
        ending.leave(end.code if isinstance(end.code, int) else 0)


if __name__ == "__main__":
    main()
