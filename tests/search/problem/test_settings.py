"""Settings: validation and the round trip through JSON."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from optuna.samplers import RandomSampler

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.search import SearchSettings
from parallelmlp_search.space import Categorical, Float, Int, SearchSpace, When


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_trials": 0}, r"n_trials must be an integer >= 1, but got 0"),
        ({"n_trials": -5}, r"n_trials must be an integer >= 1, but got -5"),
        ({"n_trials": 2.5}, r"n_trials must be an integer >= 1, but got 2.5"),
        ({"n_trials": True}, r"n_trials must be an integer >= 1, but got True"),
        ({"max_epochs": 0}, r"max_epochs must be an integer >= 1, but got 0"),
        ({"max_epochs": 10**20}, r"max_epochs must be at most 1000000, but got 1000000000000"),
        ({"n_folds": 1}, r"n_folds must be an integer >= 2, but got 1"),
        ({"n_finalists": 0}, r"n_finalists must be an integer >= 1, but got 0"),
        ({"time_limit": 0}, r"time_limit must be > 0 seconds or a duration such as '90s', .* but got 0"),
        ({"time_limit": -3}, r"time_limit must be > 0 seconds or a duration such as '90s', .* but got -3"),
        (
            {"time_limit": math.nan},
            r"time_limit must be > 0 seconds or a duration such as '90s', .* but got nan",
        ),
        (
            {"time_limit": math.inf},
            r"time_limit must be > 0 seconds or a duration such as '90s', .* but got inf",
        ),
        ({"memory_limit": 0}, r"memory_limit must be bytes > 0"),
        ({"reduction_factor": 1}, r"reduction_factor must be an integer >= 2, but got 1"),
        ({"refinement": 1.5}, r"refinement must lie in \[0, 1\], but got 1.5"),
        ({"refinement": math.nan}, r"refinement must lie in \[0, 1\], but got nan"),
        ({"sampler": "randon"}, r"sampler must be one of .*'randon'; did you mean 'random'\?"),
        ({"sampler": 3}, r"or a sampler of Optuna, but got 3"),
        ({"sampler": RandomSampler}, r"or a sampler of Optuna, but got <class"),  # not made yet
        ({"seed": -1}, r"seed must be an integer >= 0, but got -1"),
        ({"search_space": "defalt"}, r"did you mean 'default'\?"),
        ({"search_space": 3}, r"search_space must be a SearchSpace or the name of a preset, but got 3"),
    ],
)
def test_invalid_values_are_an_error(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        SearchSettings(**values)


def test_integers_of_numpy_are_accepted() -> None:
    settings = SearchSettings("small", n_trials=np.int64(10), max_epochs=3)  # type: ignore[arg-type]
    assert settings.n_trials == 10
    assert json.loads(json.dumps(settings.to_dict(), default=int))["n_trials"] == 10


SPACES = [
    "paper",
    "small",
    "default",
    "deep",
    SearchSpace(
        {
            "widths": Categorical(((8,), (16, 4), ())),
            "learning_rate": Float(1e-4, 1e-1, log=True),
            "clip_norm": Categorical((None, 1.0)),
            "normalization": Categorical(("none", "layer"), when=When("learning_rate", at_least=0.01)),
        }
    ),
    SearchSpace({"width": Int(1, 9), "seed": Int(0, 4)}),
]


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space if isinstance(space, str) else "own")
def test_settings_round_trip_through_json(space: SearchSpace | str) -> None:
    settings = SearchSettings(
        space, n_trials=7, time_limit=2.5, max_epochs=9, n_folds=3, refinement=0.1, seed=5, memory_limit=10**9
    )
    written = json.loads(json.dumps(settings.to_dict()))
    read = SearchSettings.from_dict(written)
    assert read.space == settings.space
    assert read.to_dict() == settings.to_dict()
    # a resumed run compares its settings with those read from disk
    assert written == settings.to_dict()
    assert SearchSettings(space, seed=6).to_dict() != SearchSettings(space, seed=5).to_dict()


def test_a_precision_is_kept_and_checked() -> None:
    assert SearchSettings("small").to_dict()["precision"] == "ieee"
    settings = SearchSettings("small", precision="tf32")
    assert SearchSettings.from_dict(settings.to_dict()).precision == "tf32"
    older = {name: value for name, value in settings.to_dict().items() if name != "precision"}
    assert SearchSettings.from_dict(older).precision == "ieee"
    with pytest.raises(InvalidParameterError, match="precision must be one of ieee, tf32, but got 'tf16'"):
        SearchSettings("small", precision="tf16")


def test_an_unknown_field_is_an_error() -> None:
    values = SearchSettings("small").to_dict() | {"n_trial": 3}
    with pytest.raises(InvalidParameterError, match=r"no field 'n_trial'; did you mean 'n_trials'\?"):
        SearchSettings.from_dict(values)


def test_names_of_older_versions_are_read() -> None:
    values = SearchSettings("small", tune_thresholds=False).to_dict()
    old = {name.replace("tune_thresholds", "tune_decision"): value for name, value in values.items()}
    assert "tune_decision" in old
    assert SearchSettings.from_dict(old).to_dict() == values


@pytest.mark.parametrize(
    ("limit", "size"),
    [
        (None, None),
        (10**9, 10**9),
        (3e9, 3 * 10**9),
        ("3e9", 3 * 10**9),
        ("2GB", 2 * 10**9),
        ("2G", 2 * 10**9),
        ("1.5 GiB", 3 * 2**29),
        ("512 mib", 2**29),
        (".5GB", 5 * 10**8),
        ("4096000", 4096000),
    ],
)
def test_a_memory_limit_is_a_number_of_bytes_or_a_size(limit: Any, size: int | None) -> None:
    settings = SearchSettings("small", memory_limit=limit)
    assert settings.memory_limit == settings.memory_bytes == size


@pytest.mark.parametrize(
    ("limit", "remedy"),
    [(500, "500M"), ("500", "500M"), ("512 B", "512M"), ("2kB", "2M"), (999_999, "999999M")],
)
def test_a_memory_limit_without_its_unit_is_an_error(limit: Any, remedy: str) -> None:
    with pytest.raises(InvalidParameterError, match=rf"at least 1 MB, but got \d+ bytes: write {remedy} for"):
        SearchSettings("small", memory_limit=limit)


@pytest.mark.parametrize(
    "limit",
    [0, -1, "GB", "2 2", "-1GB", "1.2.3MB", "2 apples", True, math.nan, [1], "1e999", "1e30", math.inf],
)
def test_other_memory_limits_are_an_error(limit: Any) -> None:
    with pytest.raises(InvalidParameterError, match="memory_limit must be bytes > 0 or a size such as"):
        SearchSettings("small", memory_limit=limit)


@pytest.mark.parametrize(
    ("loss", "task", "message"),
    [
        (None, "binary", None),
        ("binary_logits", "binary", None),
        ("squared_error", "binary", "loss must be one of binary_logits, but got 'squared_error'"),
        ("cross_entropy", "regression", "loss must be one of squared_error, huber, quantile"),
        ("hubr", "regression", r"but got 'hubr'; did you mean 'huber'\?"),
        ("huber:2", "regression", None),
        ("quantile:1.5", "regression", r"level of the quantile loss must lie in \(0, 1\)"),
        ("quantile:x", "regression", "a number behind its colon"),
        ("poisson", "binary", "loss must be one of binary_logits, but got 'poisson'"),
        ("tweedie:1.6", "regression", None),
        ("tweedie:1", "regression", "power of the tweedie loss"),
    ],
)
def test_a_loss_must_fit_the_task(loss: str | None, task: str, message: str | None) -> None:
    settings = SearchSettings("small", loss=loss)
    if message is None:
        settings.check_task(task)
    else:
        with pytest.raises(InvalidParameterError, match=message):
            settings.check_task(task)


def test_a_quantile_loss_has_its_own_metric() -> None:
    assert SearchSettings("small", loss="quantile:0.9").metric == "pinball:0.9"
    assert SearchSettings("small", loss="quantile").metric == "pinball:0.5"
    assert SearchSettings("small", loss="quantile:0.9", metric="mae").metric == "mae"
    assert SearchSettings("small", loss="huber").metric is None
    assert SearchSettings("small", loss="poisson").metric == "poisson_deviance"
    assert SearchSettings("small", loss="tweedie").metric == "tweedie_deviance:1.5"
    assert SearchSettings("small", loss="gamma", metric="rmse").metric == "rmse"


@pytest.mark.parametrize(
    ("loss", "target", "message"),
    [
        ("poisson", [0, 1, 2.5], None),
        ("poisson", [3, 1, -2], "loss 'poisson' needs a target >= 0, but row 2 has -2"),
        ("tweedie:1.7", [[1, 0], [0, -1]], "loss 'tweedie:1.7' needs a target >= 0, but row 1 has -1"),
        ("gamma", [1, 0], "loss 'gamma' needs a target > 0, but row 1 has 0: use poisson or tweedie"),
        ("gamma", [1, 1e-9], None),
    ],
)
def test_a_log_link_needs_amounts(loss: str, target: Any, message: str | None) -> None:
    settings, values = SearchSettings("small", loss=loss), np.array(target, dtype=float)
    if message is None:
        settings.check_task("regression", values)
    else:
        with pytest.raises(InvalidParameterError, match=message):
            settings.check_task("regression", values)


@pytest.mark.parametrize(
    ("metric", "loss", "target", "expected"),
    [
        ("poisson_deviance", None, [0.0, 3.0], "poisson"),
        ("d2_gamma", None, [1.0, 3.0], "gamma"),
        ("d2_gamma", None, [0.0, 3.0], None),
        ("tweedie_deviance:1.3", None, [0.0, 3.0], "tweedie:1.3"),
        ("d2_tweedie:1", None, [0.0, 3.0], "poisson"),
        ("poisson_deviance", None, [-1.0, 3.0], None),
        ("poisson_deviance", "squared_error", [0.0, 3.0], "squared_error"),
        ("rmse", None, [0.0, 3.0], None),
    ],
)
def test_a_deviance_is_also_the_loss(
    metric: str, loss: str | None, target: list[float], expected: str | None
) -> None:
    settings = SearchSettings("small", metric=metric, loss=loss)
    suited = settings.suited_to(np.array(target), "regression")
    assert suited.loss == expected
    assert suited.suited_to(np.array(target), "regression") == suited
    space = SearchSpace({"target_transform": Categorical(("none", "log"))})
    assert replace(settings, search_space=space).suited_to(np.array(target), "regression").loss == loss


def test_a_log_link_takes_no_transformation() -> None:
    space = SearchSpace({"target_transform": Categorical(("none", "log"))})
    with pytest.raises(
        InvalidParameterError, match="loss 'poisson' has a log link, but the search space has"
    ):
        SearchSettings(space, loss="poisson").check_task("regression")
    skewed = np.random.default_rng(0).lognormal(sigma=2, size=500)
    assert SearchSettings(loss="huber").suited_to(skewed, "regression").space != SearchSettings().space
    assert SearchSettings(loss="gamma").suited_to(skewed, "regression").space == SearchSettings().space


def test_a_preset_is_resolved_once() -> None:
    assert SearchSettings("small").space == SearchSpace.preset("small")
    assert SearchSettings().space == SearchSpace.preset("default")
