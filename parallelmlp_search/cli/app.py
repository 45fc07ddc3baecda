"""The command ``pmlp`` and its subcommands.

A command imports heavy packages only when it runs, so that ``pmlp --help`` answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from parallelmlp_search import __version__
from parallelmlp_search.cli.completion import choices, runs
from parallelmlp_search.cli.distill import distill
from parallelmlp_search.cli.explain import explain
from parallelmlp_search.cli.export import export
from parallelmlp_search.cli.inspect import inspect
from parallelmlp_search.cli.options import (
    Backend,
    Columns,
    Database,
    Jobs,
    Json,
    Quiet,
    RunPath,
    Scheduler,
    Sheet,
    TablePath,
    Task,
    budget_option,
    column_option,
    data_option,
    ensemble_option,
    output_option,
    search_option,
    shared_option,
)
from parallelmlp_search.cli.predict import predict
from parallelmlp_search.cli.process_exit import ProcessExit
from parallelmlp_search.cli.process_start import process_start
from parallelmlp_search.cli.promote import promote
from parallelmlp_search.cli.report import report
from parallelmlp_search.cli.results import evaluate, leaderboard, show
from parallelmlp_search.cli.serve import serve
from parallelmlp_search.cli.study import study
from parallelmlp_search.cli.terminal import CommandGroup, guarded, terminal

app = typer.Typer(
    name="pmlp",
    cls=CommandGroup,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _top(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Train thousands of MLPs at once on a table, rank them without selection bias, ensemble the best."""
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
    target: Annotated[str, column_option(help="Column to predict, or several: a,b,c.", show_default=False)],
    task: Task = None,
    groups: Annotated[
        str | None,
        column_option(help="Column of groups. Rows of a group are on the same side of every split."),
    ] = None,
    time_column: Annotated[
        str | None, column_option(help="Column of times. Networks are validated on later rows.")
    ] = None,
    weights: Annotated[
        str | None, column_option(help="Column of row weights. Rows of weight 0 are ignored.")
    ] = None,
    class_weight: Annotated[
        str | None,
        data_option(
            metavar="balanced",
            help="Give all classes the same total weight.",
            autocompletion=choices("class_weight"),
        ),
    ] = None,
    columns: Columns = None,
    monotonic: Annotated[
        list[str] | None,
        data_option(
            metavar="NAME=SIGN,...",
            help="Columns with which predictions may only grow (+1) or fall (-1), such as age=+1,price=-1.",
        ),
    ] = None,
    database: Database = None,
    sheet: Sheet = None,
    time_limit: Annotated[
        str | None,
        budget_option(metavar="TIME", help="Time for the whole run: seconds, or such as 90s, 10m or 1h30m."),
    ] = None,
    trials: Annotated[
        int | None,
        budget_option(metavar="N", help="Configurations to train. Default: 200, or what the time allows."),
    ] = None,
    max_epochs: Annotated[
        int | None,
        budget_option(metavar="E", help="Epochs of full training. Default: by the size of the table."),
    ] = None,
    memory_limit: Annotated[
        str | None, budget_option(metavar="SIZE", help="Most memory of the process, such as 2GB.")
    ] = None,
    latency: Annotated[
        str | None,
        budget_option(metavar="TIME", help="Most time of a prediction per row on one core, such as 20us."),
    ] = None,
    batch: Annotated[
        int, budget_option(metavar="N", help="Rows that are predicted at once, for --latency.")
    ] = 1000,
    metric: Annotated[
        str | None,
        search_option(
            metavar="NAME",
            help="Metric or scorer of scikit-learn. Default: roc_auc, log_loss or rmse, by task.",
            autocompletion=choices("metric"),
        ),
    ] = None,
    loss: Annotated[
        str | None,
        search_option(
            metavar="NAME",
            help="Training loss of a regression: squared_error, huber, quantile such as quantile:0.9; "
            "poisson for counts, gamma for positive amounts, tweedie such as tweedie:1.5 for amounts >= 0.",
            autocompletion=choices("loss"),
        ),
    ] = None,
    space: Annotated[
        str,
        search_option(
            metavar="NAME|FILE",
            help="Search space: default, small, deep, paper, or a YAML, TOML or JSON file.",
            autocompletion=choices("space"),
        ),
    ] = "default",
    sampler: Annotated[
        str,
        search_option(
            metavar="NAME",
            help="random, qmc or grid; or tpe, cmaes or gp of Optuna.",
            autocompletion=choices("sampler"),
        ),
    ] = "random",
    start_from: Annotated[
        str | None,
        search_option(
            metavar="RUN|URL",
            help="Try the best configurations of a finished run, or of a study in a storage, first.",
            autocompletion=runs,
        ),
    ] = None,
    start_study: Annotated[
        str | None,
        search_option(metavar="NAME", help="Study to start from, if that storage has several."),
    ] = None,
    device: Annotated[
        str,
        search_option(metavar="NAME", help="auto, cpu, cuda or cuda:N.", autocompletion=choices("device")),
    ] = "auto",
    precision: Annotated[
        str,
        search_option(
            metavar="NAME",
            help="Products on a CUDA device: ieee (float32) or tf32 (faster, factors rounded to ten bits).",
            autocompletion=choices("precision"),
        ),
    ] = "ieee",
    jobs: Jobs = None,
    seed: Annotated[int, search_option(metavar="N", help="Random seed.")] = 0,
    folds: Annotated[
        int | None, ensemble_option(metavar="S", help="Folds of cross-fitting. Default: 3 to 8.")
    ] = None,
    finalists: Annotated[
        int | None,
        ensemble_option(
            metavar="N",
            help="Configurations that are cross-fitted. Default: 2 to 32, or up to 128 with a time limit.",
        ),
    ] = None,
    tune_thresholds: Annotated[
        bool,
        ensemble_option(
            "--tune-thresholds/--no-tune-thresholds",
            help="Tune decision thresholds for accuracy, balanced_accuracy, f1, f1_macro and mcc.",
        ),
    ] = True,
    costs: Annotated[
        str | None,
        ensemble_option(
            metavar="COSTS|FILE.csv",
            help="Costs of errors that predictions minimise: TRUE:PREDICTED=COST,... or a CSV file.",
        ),
    ] = None,
    ordinal: Annotated[
        str | None,
        ensemble_option(
            metavar="auto|A,B,C", help="Classes are ordered: as they show themselves (auto), or as given."
        ),
    ] = None,
    calibration: Annotated[
        str,
        ensemble_option(
            metavar="NAME",
            help="Calibration of probabilities: temperature (same as auto) or none.",
            autocompletion=choices("calibration"),
        ),
    ] = "auto",
    refit: Annotated[
        bool, ensemble_option("--refit", help="Train the ensemble again on all rows at the end.")
    ] = False,
    baselines: Annotated[
        bool,
        ensemble_option(
            "--baselines/--no-baselines",
            help="Score the prior, a linear model and gradient boosting on the same folds.",
        ),
    ] = True,
    backend: Backend = None,
    scheduler: Scheduler = None,
    storage: Annotated[
        str | None,
        shared_option(
            metavar="URL", help="Optuna storage that holds the trials: sqlite:///FILE, journal:FILE, ..."
        ),
    ] = None,
    study: Annotated[
        str | None,
        shared_option(metavar="NAME", help="Study that all machines share. --trials is their total."),
    ] = None,
    screen_only: Annotated[
        bool, shared_option("--screen-only", help="Train trials for the study without building a model.")
    ] = False,
    output: Annotated[
        Path | None, output_option(metavar="DIR", help="Folder of the run. Default: runs/TABLE-TIME.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train many networks on a table, rank them, and save an ensemble of the best."""
    started = process_start()  # imports count towards the time limit
    doing = (lambda _: None) if quiet else terminal().busy
    doing("loading libraries")
    from parallelmlp_search.kernels.numba.library import compile_in_background

    if device in ("auto", "cpu"):
        compile_in_background()  # beside the imports

    from parallelmlp_search._checks import check_seconds
    from parallelmlp_search.cli.column_types import parse_column_types, parse_monotonic
    from parallelmlp_search.cli.costs import parse_costs
    from parallelmlp_search.cli.runs import (
        contribute,
        initial,
        new_run,
        perform,
        removed_unless_begun,
        sharing,
    )
    from parallelmlp_search.cli.source import Source
    from parallelmlp_search.distribute import connected
    from parallelmlp_search.search import SearchSettings
    from parallelmlp_search.search.problem.settings import implied_task
    from parallelmlp_search.space import SearchSpace, monotone_space

    known_costs = parse_costs(costs, ordinal)
    task = implied_task(task, loss, known_costs)
    signs = parse_monotonic(monotonic)
    types = parse_column_types(columns)
    source = Source(
        data, target, task, groups, time_column, weights, class_weight, types, database=database, sheet=sheet
    )
    search_space = SearchSpace.resolve(space)
    search_space = monotone_space(search_space) if signs else search_space
    settings = SearchSettings(
        search_space=search_space,
        n_trials=trials,
        time_limit=None if time_limit is None else check_seconds("time_limit", time_limit),
        max_epochs=max_epochs,
        metric=metric,
        loss=loss,
        n_folds=folds,
        n_finalists=finalists,
        sampler=sampler,
        initial=initial(start_from, start_study, search_space),
        tune_thresholds=tune_thresholds,
        costs=known_costs,
        calibration=calibration,
        refit=refit,
        monotonic=signs,
        baselines=baselines,
        seed=seed,
        device=device,
        precision=precision,
        memory_limit=memory_limit,
        infer_limit=None if latency is None else check_seconds("latency", latency),
        infer_batch_size=batch,
    )
    shared = sharing(storage, study, settings, screen_only=screen_only)
    doing(f"reading {source.name}")
    how: Any = {"jobs": jobs, "started": started, "as_json": as_json, "quiet": quiet}
    with connected(backend, scheduler):
        if screen_only:
            contribute(source, settings, shared, **how)
            return
        directory, problem = new_run(source, settings, output, shared)
        with removed_unless_begun(directory):
            perform(directory, problem, settings, source, **how)


@app.command()
@guarded
def resume(
    run: RunPath,
    jobs: Jobs = None,
    backend: Backend = None,
    scheduler: Scheduler = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Continue an interrupted run, or show the result of a finished one."""
    started = process_start()
    doing = (lambda _: None) if quiet else terminal().busy
    doing("loading libraries")
    from parallelmlp_search.cli.runs import perform, show_result
    from parallelmlp_search.cli.source import Source
    from parallelmlp_search.distribute import connected
    from parallelmlp_search.search import RunDirectory

    directory = RunDirectory.open(run)
    if directory.info().get("status") == "finished":
        directory.tidy()
        if not quiet:
            terminal().note(f"the run in {run} is already finished")
        show_result(directory, as_json=as_json, quiet=quiet)
        return
    source = Source.of_run(directory)
    doing(f"reading {source.name}")
    settings, problem = directory.settings(), source.problem_of_run(directory)
    how: Any = {"jobs": jobs, "started": started, "as_json": as_json, "quiet": quiet}
    with connected(backend, scheduler):
        perform(directory, problem, settings, source, **how)


for command in (predict, evaluate, leaderboard, show, study):
    app.command()(guarded(command))

for further in (promote, distill, explain, export, inspect, report, serve):
    app.command()(guarded(further))


@app.command()
@guarded
def info(as_json: Json = False) -> None:
    """Show versions, cores, memory and devices, for bug reports."""
    from parallelmlp_search.cli.environment import environment
    from parallelmlp_search.report import environment_page

    found = environment()
    screen = terminal()
    if as_json:
        screen.json(found)
    else:
        screen.show(environment_page(found))


def main() -> None:
    """Run the command of the arguments and exit with its exit code."""
    process_exit = ProcessExit()
    try:
        app(prog_name="pmlp")
    except SystemExit as end:
        process_exit.leave(end.code if isinstance(end.code, int) else 0)
