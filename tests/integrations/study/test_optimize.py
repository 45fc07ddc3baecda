"""Studies of packed trials: results as of single trials, pruning, objectives, constraints, errors."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from parallelmlp_search.exceptions import InvalidParameterError, SearchFailedError
from parallelmlp_search.integrations.optuna import (
    Candidate,
    PackedObjective,
    constraints_of,
    optimize,
    space_to_distributions,
    suggest,
)
from parallelmlp_search.integrations.optuna.compatibility import HAS_TRIAL_CONSTRAINTS
from parallelmlp_search.integrations.optuna.study import candidate as candidate_module
from parallelmlp_search.integrations.optuna.study import objective as objective_module
from parallelmlp_search.space import Categorical, MLPConfig, SearchSpace
from tests.integrations.conftest import SPACE, Table


def _study(direction: str = "maximize", **options: Any) -> optuna.Study:
    options.setdefault("sampler", optuna.samplers.TPESampler(seed=3, n_startup_trials=4))
    return optuna.create_study(direction=direction, **options)


def _contents(study: optuna.Study) -> list[tuple[Any, ...]]:
    """Everything that is stored of the trials, except measured times."""
    contents = []
    for t in study.trials:
        attributes = {name: value for name, value in t.user_attrs.items() if name != "train_seconds"}
        assert t.user_attrs.get("train_seconds", 1.0) > 0
        contents.append((t.number, t.state, t.params, t.intermediate_values, t.value, attributes))
    return contents


@pytest.mark.parametrize(
    "pruner", [optuna.pruners.MedianPruner(n_startup_trials=2), optuna.pruners.NopPruner()]
)
def test_batches_of_one_equal_the_loop_of_optuna(table: Table, pruner: optuna.pruners.BasePruner) -> None:
    objective = PackedObjective(*table, SPACE, max_epochs=9)
    packed, plain = _study(pruner=pruner), _study(pruner=pruner)
    optimize(packed, objective, n_trials=12, batch_size=1)
    plain.optimize(objective, n_trials=12)
    assert _contents(packed) == _contents(plain)
    states = {trial.state for trial in packed.trials}
    assert (TrialState.PRUNED in states) == isinstance(pruner, optuna.pruners.MedianPruner)


def test_a_trial_gets_the_same_value_in_a_batch_and_alone(table: Table) -> None:
    objective = PackedObjective(*table, SPACE, metric="log_loss", max_epochs=3)
    study = _study(
        "minimize", sampler=optuna.samplers.RandomSampler(seed=1), pruner=optuna.pruners.NopPruner()
    )
    optimize(study, objective, n_trials=20)
    for trial in study.trials[::5]:
        twin = _study("minimize", pruner=optuna.pruners.NopPruner())
        for _ in range(trial.number):
            twin.add_trial(optuna.trial.create_trial(state=TrialState.FAIL))
        twin.enqueue_trial(trial.params)
        twin.optimize(objective, n_trials=1)
        assert twin.trials[-1].params == trial.params
        assert twin.trials[-1].value == pytest.approx(trial.value, rel=1e-3)
        assert twin.trials[-1].intermediate_values.keys() == {1, 3}


def test_the_number_of_workers_changes_nothing(table: Table) -> None:
    contents = []
    for n_jobs in (1, 2):
        study = _study(sampler=optuna.samplers.RandomSampler(seed=1))
        optimize(study, *table, SPACE, n_trials=16, batch_size=8, max_epochs=3, n_jobs=n_jobs)
        contents.append(_contents(study))
    assert contents[0] == contents[1]


def test_the_pruner_of_the_study_is_used(table: Table) -> None:
    study = _study(pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3))
    optimize(study, *table, SPACE, n_trials=27, batch_size=27, max_epochs=9)
    by_rungs = [len(trial.intermediate_values) for trial in study.trials]
    assert len(study.trials) == 27
    assert by_rungs.count(1) > by_rungs.count(2) >= 1
    for trial in study.trials:
        assert trial.state is (TrialState.COMPLETE if 9 in trial.intermediate_values else TrialState.PRUNED)
        assert trial.value == list(trial.intermediate_values.values())[-1]
        assert trial.user_attrs["epochs"] == max(trial.intermediate_values)


def test_enqueued_trials_come_first(table: Table) -> None:
    study = _study()
    wanted = {"widths": "8-8", "learning_rate": 0.01, "dropout": 0.2, "batch_size": 32}
    study.enqueue_trial(wanted)
    optimize(study, *table, SPACE, n_trials=4, max_epochs=1)
    assert study.trials[0].params == wanted
    assert study.trials[0].user_attrs["n_parameters"] > 0


def test_user_defined_spaces(table: Table) -> None:
    def space(trial: optuna.Trial) -> MLPConfig:
        depth = trial.suggest_int("layers", 1, 2)
        if trial.number == 2:
            raise ZeroDivisionError("on purpose")
        if trial.number == 3:
            raise optuna.TrialPruned
        return MLPConfig(widths=(trial.suggest_int("width", 4, 9),) * depth, batch_size=32, seed=trial.number)

    study = _study()
    optimize(study, *table, space, n_trials=6, max_epochs=1, catch=ZeroDivisionError)
    states = [trial.state for trial in study.trials]
    assert states.count(TrialState.COMPLETE) == 4
    assert states[2] is TrialState.FAIL
    assert "on purpose" in study.trials[2].user_attrs["failure"]
    assert states[3] is TrialState.PRUNED
    with pytest.raises(ZeroDivisionError):
        optimize(second := _study(), *table, space, n_trials=6, max_epochs=1)
    assert {trial.state for trial in second.trials} == {TrialState.FAIL}  # none is left running
    with pytest.raises(InvalidParameterError, match="MLPConfig"):
        optimize(_study(), *table, lambda trial: 3, n_trials=1)  # type: ignore[arg-type, return-value]


def test_optuna_distributions_are_a_space(table: Table) -> None:
    space = space_to_distributions(SPACE) | {"dropout": Categorical((0.1,))}
    study = _study()
    optimize(study, *table, space, n_trials=3, max_epochs=1)
    for trial in study.trials:
        config = suggest(optuna.trial.FixedTrial(trial.params), space)
        assert SPACE.domains["widths"].contains(config.widths)
        assert config.dropout == 0.1
    with pytest.raises(InvalidParameterError, match="did you mean 'dropout'"):
        optimize(study, *table, {"dropuot": space_to_distributions(SPACE)["dropout"]}, n_trials=1)


@pytest.mark.parametrize("what", ["attribute", "choice", "attribute of the study"])
def test_values_that_no_storage_can_hold_fail_their_trial(table: Table, what: str) -> None:
    class Thing:
        pass

    def space(trial: optuna.Trial) -> MLPConfig:
        if trial.number == 1 and what == "attribute":
            trial.set_user_attr("thing", Thing())
        if trial.number == 1 and what == "choice":
            trial.suggest_categorical("thing", [Thing()])  # type: ignore[list-item]
        if trial.number == 1 and what == "attribute of the study":
            trial.study.set_user_attr("thing", Thing())
        return MLPConfig(widths=(trial.suggest_int("width", 4, 8),), batch_size=32, seed=trial.number)

    study = _study(storage="sqlite://")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Optuna warns about the choice
        optimize(study, *table, space, n_trials=3, max_epochs=1, catch=TypeError)
    states = [trial.state for trial in study.trials]
    assert states == [TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE]
    assert study.user_attrs == {}  # heartbeats are system attributes


def test_a_diverged_network_is_a_failed_trial(table: Table) -> None:
    rates = SearchSpace(
        {
            "learning_rate": Categorical((0.01, 1e30)),
            "optimizer": Categorical(("sgd",)),
            "widths": Categorical(((8,),)),
            "activation": Categorical(("identity",)),
        }
    )
    study = _study(sampler=optuna.samplers.GridSampler({"learning_rate": [0.01, 1e30]}, seed=0))
    optimize(study, *table, rates, n_trials=2, max_epochs=27)
    by_rate = {trial.params["learning_rate"]: trial for trial in study.trials}
    assert by_rate[0.01].state is TrialState.COMPLETE
    assert by_rate[1e30].state is TrialState.FAIL
    assert "finite" in by_rate[1e30].user_attrs["failure"]
    alone = _study()
    alone.enqueue_trial({"learning_rate": 1e30})
    alone.optimize(PackedObjective(*table, rates, max_epochs=27), n_trials=1, catch=SearchFailedError)
    assert alone.trials[0].state is TrialState.FAIL


def test_several_objectives(table: Table) -> None:
    study = optuna.create_study(
        directions=["minimize", "minimize", "maximize"], sampler=optuna.samplers.NSGAIISampler(seed=0)
    )
    objectives = ("score", "n_parameters", lambda candidate: candidate.config.learning_rate)
    optimize(study, *table, SPACE, n_trials=8, max_epochs=3, metric="log_loss", objectives=objectives)
    assert all(trial.state is TrialState.COMPLETE for trial in study.trials)
    for trial in study.trials:
        assert trial.values[1] == trial.user_attrs["n_parameters"]
        assert trial.values[2] == trial.params["learning_rate"]
    assert study.best_trials


def test_latency_is_measured_in_milliseconds(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(np.arange(0, 10_000, 0.5))
    monkeypatch.setattr(candidate_module.time, "perf_counter", lambda: float(next(seconds)))
    study = optuna.create_study(directions=["maximize", "minimize"])
    optimize(study, *table, SPACE, n_trials=2, max_epochs=1, objectives=("score", "latency_ms"))
    assert [trial.values[1] for trial in study.trials] == [500.0, 500.0]


def test_constraints_reach_the_sampler(table: Table) -> None:
    options = {} if HAS_TRIAL_CONSTRAINTS else {"constraints_func": constraints_of}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = _study(sampler=optuna.samplers.TPESampler(seed=3, n_startup_trials=4, **options))
    constraints = {"size": lambda candidate: candidate.n_parameters - 800.0}
    optimize(study, *table, SPACE, n_trials=24, batch_size=8, max_epochs=1, constraints=constraints)
    for trial in study.trials:
        assert constraints_of(trial) == [trial.user_attrs["n_parameters"] - 800.0]
    feasible = [trial for trial in study.trials if constraints_of(trial)[0] <= 0]
    assert study.best_trial in feasible
    assert 0 < len(feasible) < 24


def test_a_sampler_that_would_ignore_constraints_is_refused(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objective_module, "HAS_TRIAL_CONSTRAINTS", False)  # as under Optuna 4
    constraints = {"size": lambda candidate: candidate.n_parameters - 800.0}
    with pytest.raises(InvalidParameterError, match="create TPESampler with constraints_func=constraints_of"):
        optimize(_study(), *table, SPACE, n_trials=2, max_epochs=1, constraints=constraints)
    study = _study(sampler=optuna.samplers.RandomSampler(seed=0))  # knows no constraints
    optimize(study, *table, SPACE, n_trials=2, max_epochs=1, constraints=constraints)
    assert [constraints_of(trial) for trial in study.trials] == [
        [trial.user_attrs["n_parameters"] - 800.0] for trial in study.trials
    ]


@pytest.mark.parametrize("storage", [None, "sqlite://"])
@pytest.mark.parametrize("which", ["objective", "constraint"])
def test_user_defined_functions_can_fail(table: Table, which: str, storage: str | None) -> None:
    def function(candidate: Candidate) -> float:
        if candidate.config.widths == (12,):
            raise ZeroDivisionError("on purpose")
        return -1.0

    more: dict[str, Any] = {"constraints": {"none": function}}
    if which == "objective":
        more = {"objectives": ("score", function)}
    directions = ["maximize", "minimize"][: len(more.get("objectives", "1"))]

    def study() -> optuna.Study:
        sampler = optuna.samplers.RandomSampler(seed=0)
        return optuna.create_study(directions=directions, sampler=sampler, storage=storage)

    caught = study()
    optimize(caught, *table, SPACE, n_trials=9, max_epochs=1, catch=ZeroDivisionError, **more)
    for trial in caught.trials:
        fails = trial.params["widths"] == "12"
        assert trial.state is (TrialState.FAIL if fails else TrialState.COMPLETE)
        assert ("on purpose" in trial.user_attrs.get("failure", "")) is fails
    assert 0 < sum(trial.state is TrialState.FAIL for trial in caught.trials) < 9
    with pytest.raises(ZeroDivisionError):
        optimize(uncaught := study(), *table, SPACE, n_trials=9, max_epochs=1, **more)
    assert all(trial.state.is_finished() for trial in uncaught.trials)
    assert any(trial.state is TrialState.FAIL for trial in uncaught.trials)


@pytest.mark.parametrize("storage", [None, "sqlite://"])
def test_log_messages_equal_those_of_optuna(table: Table, storage: str | None) -> None:
    optuna.logging.set_verbosity(optuna.logging.INFO)
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logging.getLogger("optuna").addHandler(handler)
    objective = PackedObjective(*table, SPACE, max_epochs=9)

    def lines(loop: Any) -> list[tuple[int, str]]:
        study = _study(
            study_name="s", storage=storage, pruner=optuna.pruners.MedianPruner(n_startup_trials=2)
        )
        records.clear()
        loop(study)
        return [(record.levelno, record.getMessage().strip()) for record in records]

    try:
        ours = lines(lambda study: optimize(study, objective, n_trials=8, batch_size=1))
        assert ours == lines(lambda study: study.optimize(objective, n_trials=8))
        batch = lines(lambda study: optimize(study, objective, n_trials=8, batch_size=8))
    finally:
        logging.getLogger("optuna").removeHandler(handler)
    assert {"finished" in line for _, line in ours} == {True, False}
    assert len(batch) == 8
    assert {level for level, _ in batch} == {logging.INFO}


def test_callbacks_see_each_trial_and_may_stop(table: Table) -> None:
    seen: list[int] = []

    def callback(study: optuna.Study, trial: FrozenTrial) -> None:
        seen.append(trial.number)
        if len(seen) == 5:
            study.stop()

    study = _study()
    optimize(study, *table, SPACE, n_trials=40, batch_size=4, max_epochs=1, callbacks=[callback])
    assert len(study.trials) == 8  # the current batch is finished
    assert sorted(seen) == list(range(8))
    with pytest.raises(RuntimeError):
        study.stop()  # outside of the loop


def test_an_interrupt_leaves_no_trial_running(table: Table) -> None:
    def interrupt(study: optuna.Study, trial: FrozenTrial) -> None:
        if trial.number >= 4:
            raise KeyboardInterrupt

    study = _study()
    with pytest.raises(KeyboardInterrupt):
        optimize(study, *table, SPACE, n_trials=12, batch_size=4, max_epochs=1, callbacks=[interrupt])
    states = [trial.state for trial in study.trials]
    assert states == [TrialState.COMPLETE] * 5 + [TrialState.FAIL] * 3


@pytest.mark.alone
def test_a_timeout_prunes_running_trials(table: Table) -> None:
    study = _study(sampler=optuna.samplers.RandomSampler(seed=0), pruner=optuna.pruners.NopPruner())
    optimize(study, *table, SPACE, n_trials=60, max_epochs=9000, timeout=2.0)
    assert all(trial.state.is_finished() for trial in study.trials)
    pruned = [trial for trial in study.trials if trial.state is TrialState.PRUNED]
    assert pruned
    assert all(trial.user_attrs["epochs"] < 9000 for trial in pruned if "epochs" in trial.user_attrs)
    seconds = (
        max(t.datetime_complete for t in study.trials) - study.trials[0].datetime_start
    ).total_seconds()
    assert seconds < 8.0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 0}, "batch_size, if not 'auto', must be an integer >= 1, but got 0"),
        ({"batch_size": "all"}, "batch_size, if not 'auto', must be an integer >= 1, but got 'all'"),
        ({"n_trials": -1}, "n_trials must be an integer >= 0, but got -1"),
        ({"timeout": 0}, "timeout must be a finite number > 0, but got 0"),
        ({"heartbeat": 0}, "heartbeat must be a finite number > 0, but got 0"),
        ({"loss": "squared_error"}, "loss must be one of binary_logits"),
        ({"objectives": ("scor",)}, "did you mean 'score'"),
        ({"device": "tpu"}, "device must be auto, cpu, cuda or cuda:N"),
        ({"objectives": ()}, "at least one"),
        ({"objectives": ("score", "n_parameters")}, "as many as the study has directions"),
        ({"metric": "log_loss"}, "must minimize log_loss"),
    ],
)
def test_invalid_parameters_are_refused(table: Table, changes: dict[str, Any], words: str) -> None:
    study = _study()
    with pytest.raises(InvalidParameterError, match=words):
        optimize(study, *table, SPACE, **({"n_trials": 1} | changes))
    assert study.trials == []


def test_an_objective_contains_target_and_space(table: Table) -> None:
    objective = PackedObjective(*table, SPACE, max_epochs=1)
    with pytest.raises(InvalidParameterError, match="leave them out"):
        optimize(_study(), objective, table[1], n_trials=1)
    with pytest.raises(InvalidParameterError, match="y must be given"):
        optimize(_study(), table[0], n_trials=1)


def test_nested_loops_are_refused(table: Table) -> None:
    study = _study()

    def again(study: optuna.Study, trial: FrozenTrial) -> None:
        optimize(study, *table, SPACE, n_trials=1)

    with pytest.raises(InvalidParameterError, match="another optimize"):
        optimize(study, *table, SPACE, n_trials=1, max_epochs=1, callbacks=[again])


def test_suggest_and_optimize_share_a_study(table: Table) -> None:
    study = _study()
    optimize(study, *table, SPACE, n_trials=3, max_epochs=1)
    trial = study.ask()
    assert SPACE.contains(suggest(trial, SPACE))
    study.tell(trial, 0.5)
    assert study.best_value >= 0.5
