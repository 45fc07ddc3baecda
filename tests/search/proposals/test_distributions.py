"""Search spaces as distributions of Optuna and back, and configurations from its trials."""

from __future__ import annotations

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.integrations.optuna import space_from_distributions, space_to_distributions, suggest
from parallelmlp_search.search.proposals.distributions import decode_value, encode_value
from parallelmlp_search.space import PRESETS, Categorical, Float, Int, MLPConfig, SearchSpace, When

UNCONDITIONAL = SearchSpace(
    {
        "widths": Categorical(((), (64,), (128, 64))),
        "learning_rate": Float(1e-4, 1e-1, log=True),
        "dropout": Float(0.0, 0.5, step=0.1),
        "batch_size": Int(32, 256, step=32),
        "bias": Categorical((True, False)),
        "clip_norm": Categorical((None, 1.0)),
    }
)


def test_distributions_by_hand() -> None:
    assert space_to_distributions(UNCONDITIONAL) == {
        "widths": CategoricalDistribution(["linear", "64", "128-64"]),
        "learning_rate": FloatDistribution(1e-4, 1e-1, log=True),
        "dropout": FloatDistribution(0.0, 0.5, step=0.1),
        "batch_size": IntDistribution(32, 256, step=32),
        "bias": CategoricalDistribution([True, False]),
        "clip_norm": CategoricalDistribution([None, 1.0]),
    }


def test_a_space_round_trips_through_distributions() -> None:
    assert space_from_distributions(space_to_distributions(UNCONDITIONAL)) == UNCONDITIONAL


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_a_preset_round_trips_except_for_its_conditions(preset: str) -> None:
    space = SearchSpace.preset(preset)
    back = space_from_distributions(space_to_distributions(space))
    assert back.names == space.names
    for name, domain in space.domains.items():
        before, after = domain.to_dict(), back.domains[name].to_dict()
        before.pop("when", None)
        assert after == before


def test_unsupported_distributions_are_an_error() -> None:
    with pytest.raises(InvalidParameterError, match="learnin_rate"):
        space_from_distributions({"learnin_rate": FloatDistribution(0.1, 1.0)})
    with pytest.raises(InvalidParameterError, match="64"):
        decode_value(UNCONDITIONAL.domains["widths"], "64-64")
    with pytest.raises(InvalidParameterError, match=r"0\.55"):
        decode_value(UNCONDITIONAL.domains["dropout"], 0.55)


def test_true_is_not_one() -> None:
    assert decode_value(Categorical((1, True)), True) is True
    assert decode_value(Categorical((True, 1)), 1) == 1
    assert decode_value(Categorical((True, 1)), 1) is not True


@given(st.sampled_from(sorted(PRESETS)), st.integers(0, 10_000))
def test_suggestions_of_a_study_are_in_the_space(preset: str, seed: int) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = SearchSpace.preset(preset)
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask()
    config = suggest(trial, preset)
    assert space.contains(config)
    assert config.seed == trial.params.get("seed", trial.number)
    # exactly the active parameters are suggested, with the values that are stored
    values = space.to_values(config)
    assert trial.params == {name: encode_value(value) for name, value in values.items()}
    # the same values give the same configuration
    assert suggest(optuna.trial.FixedTrial(trial.params, number=trial.number), space) == config


def test_an_inactive_parameter_is_not_suggested() -> None:
    space = SearchSpace(
        {
            "optimizer": Categorical(("sgd", "adamw")),
            "momentum": Float(0.5, 0.9, when=When("optimizer", equals="sgd")),
        }
    )
    plain = suggest(optuna.trial.FixedTrial({"optimizer": "adamw"}), space, seed=7)
    assert plain == MLPConfig(optimizer="adamw", seed=7)
    with pytest.raises(ValueError, match="momentum"):
        suggest(optuna.trial.FixedTrial({"optimizer": "sgd"}), space)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("sampler", [optuna.samplers.TPESampler, optuna.samplers.QMCSampler])
def test_stepped_numbers_of_other_samplers(sampler: type[optuna.samplers.BaseSampler]) -> None:
    study = optuna.create_study(sampler=sampler(seed=0))  # type: ignore[call-arg]
    for _ in range(30):
        trial = study.ask()
        assert UNCONDITIONAL.contains(suggest(trial, UNCONDITIONAL))
        study.tell(trial, float(trial.params["dropout"]))
