"""PackedSearchCV against scikit-learn's own searches."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from scipy import stats
from sklearn import config_context
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_diabetes, load_iris
from sklearn.exceptions import FitFailedWarning
from sklearn.metrics import accuracy_score, get_scorer, make_scorer
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    ShuffleSplit,
    TimeSeriesSplit,
    cross_val_score,
    cross_validate,
)
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from parallelmlp_search import (
    MLPConfig,
    PackedSearchCV,
    ParallelMLPClassifier,
    SearchSpace,
    SingleMLPClassifier,
    SingleMLPRegressor,
)
from parallelmlp_search.estimators.folds import CachedPipeline
from parallelmlp_search.exceptions import DataWarning, InvalidParameterError, PMLPWarning, SearchFailedError
from parallelmlp_search.search.run.workers import Workers
from parallelmlp_search.space import Categorical, Float, Int

GRID: dict[str, list[Any]] = {
    "widths": [(8,), (16, 8)],
    "learning_rate": [0.01, 0.03],
    "dropout": [0.0, 0.2],
}
DIVERGES = {"optimizer": "sgd", "learning_rate": 1e30}


def classifier(**changes: Any) -> SingleMLPClassifier:
    return SingleMLPClassifier(**{"max_epochs": 8, "batch_size": 32, "random_state": 3} | changes)


def regressor(**changes: Any) -> SingleMLPRegressor:
    return SingleMLPRegressor(**{"max_epochs": 8, "batch_size": 32, "random_state": 3} | changes)


def packed(estimator: Any, grid: Any = GRID, **changes: Any) -> PackedSearchCV:
    return PackedSearchCV(estimator, grid, **{"sampler": "grid", "cv": 3, "n_jobs": 1} | changes)


@pytest.fixture(scope="module")
def flowers() -> tuple[np.ndarray, np.ndarray]:
    X, y = load_iris(return_X_y=True)
    return X, np.array(["setosa", "versicolor", "virginica"])[y]


@pytest.fixture(scope="module")
def two() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(150, 4))
    return X, (X[:, 0] + X[:, 1] * X[:, 2] + 0.3 * rng.normal(size=150) > 0).astype(int)


@pytest.fixture(scope="module")
def patients() -> tuple[pd.DataFrame, pd.Series]:
    X, y = load_diabetes(return_X_y=True, as_frame=True)
    return X[:200], y[:200]


@pytest.fixture(scope="module")
def people() -> tuple[pd.DataFrame, pd.Series]:
    rng = np.random.default_rng(1)
    city = rng.choice(["Graz", "Linz", "Wien"], size=150)
    age = rng.integers(18, 80, size=150).astype(float)
    frame = pd.DataFrame({"age": np.where(rng.random(150) < 0.1, np.nan, age), "city": city})
    return frame, pd.Series(np.where((city == "Wien") | (age > 60), "yes", "no"), name="buys")


def same_results(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Compare everything except times."""
    assert set(ours) == set(theirs)
    assert ours["params"] == theirs["params"]
    for name, values in theirs.items():
        if name == "params" or name.endswith("_time"):
            continue
        if name.startswith("param_"):
            assert ours[name].tolist() == values.tolist()
        elif name.startswith("rank"):
            np.testing.assert_array_equal(ours[name], values)
        else:
            np.testing.assert_allclose(ours[name], values, rtol=1e-4, atol=1e-6, err_msg=name)


class TestAgainstGridSearchCV:
    """scikit-learn's search, which trains each network alone, is the reference."""

    @pytest.mark.parametrize(
        ("scoring", "refit"),
        [
            (None, True),
            ("roc_auc", True),
            (["accuracy", "neg_log_loss"], "neg_log_loss"),
            ({"loss": "neg_log_loss", "hits": make_scorer(accuracy_score)}, "hits"),
        ],
    )
    def test_classifiers(self, scoring: Any, refit: Any, two: tuple[np.ndarray, np.ndarray]) -> None:
        options: dict[str, Any] = {"scoring": scoring, "refit": refit, "return_train_score": True, "cv": 3}
        theirs = GridSearchCV(classifier(), GRID, **options).fit(*two)
        ours = packed(classifier(), **options).fit(*two)
        same_results(ours.cv_results_, theirs.cv_results_)
        assert ours.best_params_ == theirs.best_params_
        assert ours.best_index_ == theirs.best_index_
        assert ours.best_score_ == pytest.approx(theirs.best_score_, abs=1e-6)
        assert ours.multimetric_ == theirs.multimetric_
        assert type(ours.scorer_) is type(theirs.scorer_)
        assert ours.score(*two) == pytest.approx(theirs.score(*two), abs=1e-6)
        # the best network is trained alone in both cases
        np.testing.assert_array_equal(ours.predict_proba(two[0]), theirs.predict_proba(two[0]))

    @pytest.mark.parametrize(
        "grid",
        [
            {"learning_rate": [0.03, 0.01], "widths": [(8,), (4,)]},
            [{"dropout": [0.2, 0.0]}, {"widths": [()], "learning_rate": [0.01]}, {}],
            {"dropout": np.array([0.1, 0.1]), "batch_size": range(16, 33, 16)},  # repeats count twice
        ],
    )
    def test_param_grid(self, grid: Any, two: tuple[np.ndarray, np.ndarray]) -> None:
        options: dict[str, Any] = {"cv": 3, "scoring": "neg_log_loss", "return_train_score": True}
        small = classifier(max_epochs=3)
        theirs = GridSearchCV(small, param_grid=grid, **options).fit(*two)
        ours = PackedSearchCV(small, param_grid=grid, n_jobs=1, **options).fit(*two)
        same_results(ours.cv_results_, theirs.cv_results_)
        assert ours.best_params_ == theirs.best_params_
        assert clone(ours).param_grid is grid or isinstance(clone(ours).param_grid, type(grid))

    def test_param_grid_of_a_pipeline(self, people: tuple[pd.DataFrame, pd.Series]) -> None:
        encode = make_column_transformer((OneHotEncoder(), ["city"]), remainder=StandardScaler())
        pipeline = Pipeline([("encode", encode), ("mlp", classifier(max_epochs=3))])
        grid = {"mlp__dropout": [0.0, 0.2], "mlp__widths": [(4,), (8,)]}
        theirs = GridSearchCV(pipeline, grid, cv=3).fit(*people)
        ours = PackedSearchCV(pipeline, param_grid=grid, cv=3, n_jobs=1).fit(*people)
        same_results(ours.cv_results_, theirs.cv_results_)

    def test_another_seed_gives_other_scores(self, two: tuple[np.ndarray, np.ndarray]) -> None:
        scores = [
            packed(classifier(random_state=seed), scoring="neg_log_loss").fit(*two).cv_results_
            for seed in (3, 4)
        ]
        assert np.all(scores[0]["split0_test_score"] != scores[1]["split0_test_score"])

    def test_many_classes(self, flowers: tuple[np.ndarray, np.ndarray]) -> None:
        theirs = GridSearchCV(classifier(), GRID, cv=3, scoring="neg_log_loss").fit(*flowers)
        ours = packed(classifier(), scoring="neg_log_loss").fit(*flowers)
        same_results(ours.cv_results_, theirs.cv_results_)
        assert ours.classes_.tolist() == theirs.classes_.tolist() == ["setosa", "versicolor", "virginica"]

    @pytest.mark.parametrize("outputs", [1, 2])
    def test_regressors(self, outputs: int, patients: tuple[pd.DataFrame, pd.Series]) -> None:
        X, y = patients
        target = y if outputs == 1 else pd.DataFrame({"once": y, "squared": y**2})
        theirs = GridSearchCV(regressor(), GRID, cv=3).fit(X, target)
        ours = packed(regressor()).fit(X, target)
        same_results(ours.cv_results_, theirs.cv_results_)
        assert ours.predict(X).shape == target.shape
        assert ours.feature_names_in_.tolist() == list(X.columns)
        assert ours.n_features_in_ == 10

    def test_sampled_candidates(self, two: tuple[np.ndarray, np.ndarray]) -> None:
        search = PackedSearchCV(
            None, "small", n_trials=5, max_epochs=8, cv=3, scoring="roc_auc", random_state=0, n_jobs=1
        ).fit(*two)
        alone = clone(search.best_estimator_)
        assert search.best_score_ == pytest.approx(
            cross_val_score(alone, *two, cv=3, scoring="roc_auc").mean(), abs=1e-4
        )
        space = SearchSpace.preset("small")
        config = search.best_estimator_.config_
        assert space.to_values(config) == search.best_params_

    def test_default_epochs(self, two: tuple[np.ndarray, np.ndarray]) -> None:
        grid = {"learning_rate": [0.01, 0.03]}
        theirs = GridSearchCV(classifier(max_epochs=None), grid, cv=3, scoring="neg_log_loss").fit(*two)
        ours = packed(classifier(max_epochs=None), grid, scoring="neg_log_loss").fit(*two)
        same_results(ours.cv_results_, theirs.cv_results_)

    def test_row_weights(self, two: tuple[np.ndarray, np.ndarray]) -> None:
        weight = np.random.default_rng(0).integers(0, 4, size=150).astype(float)
        theirs = GridSearchCV(classifier(), GRID, cv=3, scoring="roc_auc").fit(*two, sample_weight=weight)
        ours = packed(classifier(), scoring="roc_auc").fit(*two, sample_weight=weight)
        same_results(ours.cv_results_, theirs.cv_results_)
        without = packed(classifier(), scoring="roc_auc").fit(*two)
        assert np.abs(ours.cv_results_["mean_test_score"] - without.cv_results_["mean_test_score"]).max() > 0

    @pytest.mark.parametrize(
        "cv",
        [
            KFold(4, shuffle=True, random_state=0),
            ShuffleSplit(2, random_state=0),
            TimeSeriesSplit(3),
            [(np.arange(0, 90), np.arange(90, 150)), (np.arange(60, 150), np.arange(0, 60))],
        ],
        ids=["k folds", "shuffled", "in time", "a list"],
    )
    def test_splits(self, cv: Any, two: tuple[np.ndarray, np.ndarray]) -> None:
        grid = {"learning_rate": [0.01, 0.03]}
        theirs = GridSearchCV(classifier(), grid, cv=cv, scoring="neg_log_loss").fit(*two)
        ours = packed(classifier(), grid, cv=cv, scoring="neg_log_loss").fit(*two)
        same_results(ours.cv_results_, theirs.cv_results_)
        assert ours.n_splits_ == theirs.n_splits_

    def test_groups_reach_the_splitter(self, two: tuple[np.ndarray, np.ndarray]) -> None:
        groups = np.arange(150) % 7
        grid = {"learning_rate": [0.01, 0.03]}
        options: dict[str, Any] = {"cv": GroupKFold(3), "scoring": "neg_log_loss"}
        theirs = GridSearchCV(classifier(), grid, **options).fit(*two, groups=groups)
        ours = packed(classifier(), grid, **options).fit(*two, groups=groups)
        same_results(ours.cv_results_, theirs.cv_results_)

    def test_a_class_is_missing_from_a_training_fold(self) -> None:
        rng = np.random.default_rng(0)
        X, y = rng.normal(size=(60, 3)), np.repeat([0, 1, 2], 20)
        splits = [(np.arange(0, 40), np.arange(30, 40)), (np.arange(20, 60), np.arange(50, 60))]
        grid = {"learning_rate": [0.01, 0.03]}
        theirs = GridSearchCV(classifier(), grid, cv=splits).fit(X, y)
        ours = packed(classifier(), grid, cv=splits).fit(X, y)
        same_results(ours.cv_results_, theirs.cv_results_)


class TestPipelines:
    def test_steps_before_the_network_are_fitted_inside_the_folds(
        self, people: tuple[pd.DataFrame, pd.Series]
    ) -> None:
        encode = make_column_transformer((OneHotEncoder(), ["city"]), remainder="passthrough")
        pipeline = Pipeline([("encode", encode), ("scale", StandardScaler()), ("mlp", classifier())])
        grid = {f"mlp__{name}": values for name, values in GRID.items()}
        options: dict[str, Any] = {"scoring": ["neg_log_loss", "accuracy"], "refit": "accuracy", "cv": 3}
        theirs = GridSearchCV(pipeline, grid, return_train_score=True, **options).fit(*people)
        ours = packed(pipeline, grid, return_train_score=True, **options).fit(*people)
        same_results(ours.cv_results_, theirs.cv_results_)
        assert ours.best_params_ == theirs.best_params_
        np.testing.assert_array_equal(ours.predict(people[0]), theirs.predict(people[0]))
        assert type(ours.best_estimator_) is Pipeline

    @pytest.mark.parametrize("task", ["classes", "numbers"])
    def test_default_score_and_weights_of_a_step(self, task: str, two: tuple[np.ndarray, np.ndarray]) -> None:
        X, y = two[0], two[1] if task == "classes" else two[0][:, 0]
        network = classifier() if task == "classes" else regressor()
        pipeline = Pipeline([("scale", StandardScaler()), ("mlp", network)])
        grid = {"mlp__learning_rate": [0.01, 0.03]}
        weight = np.random.default_rng(0).random(150)
        theirs = GridSearchCV(pipeline, grid, cv=3).fit(X, y, mlp__sample_weight=weight)
        ours = packed(pipeline, grid).fit(X, y, mlp__sample_weight=weight)
        same_results(ours.cv_results_, theirs.cv_results_)
        assert hasattr(ours, "predict_proba") is (task == "classes")

    def test_a_preset_applies_to_the_last_step(self, two: tuple[np.ndarray, np.ndarray]) -> None:
        pipeline = make_pipeline(StandardScaler(), classifier())
        search = packed(pipeline, "small", sampler="random", n_trials=3, random_state=0).fit(*two)
        network = search.best_estimator_[-1]
        rate = search.best_params_["singlemlpclassifier__learning_rate"]
        assert network.config_.learning_rate == rate

    def test_scorers_receive_the_original_rows(self, people: tuple[pd.DataFrame, pd.Series]) -> None:
        encode = make_column_transformer((OneHotEncoder(), ["city"]), remainder="passthrough")
        seen: list[Any] = []

        def score(estimator: Any, X: pd.DataFrame, y: Any) -> float:
            seen.append(estimator)
            older = X[X["age"] > 40]  # these rows are not in the cache
            np.testing.assert_allclose(
                estimator.predict_proba(X)[X["age"] > 40], estimator.predict_proba(older), atol=1e-6
            )
            assert list(estimator.named_steps) == ["encode", "mlp"]
            return float(older["age"].mean())

        pipeline = Pipeline([("encode", encode), ("mlp", classifier())])
        search = packed(pipeline, {"mlp__dropout": [0.0]}, scoring=score).fit(*people)
        assert 50 < search.best_score_ < 70
        assert all(isinstance(one, CachedPipeline) for one in seen)

    def test_as_the_last_step_of_a_pipeline(self, people: tuple[pd.DataFrame, pd.Series]) -> None:
        encode = make_column_transformer((OneHotEncoder(), ["city"]), remainder="passthrough")
        search = packed(classifier(max_epochs=60), {"widths": [(8,), (16,)]}, scoring="roc_auc")
        model = make_pipeline(encode, search).fit(*people)
        assert model.score(*people) > 0.9
        assert is_classifier(model)
        scores = cross_val_score(model, *people, cv=3)
        assert scores.mean() > 0.8


class TestCandidates:
    @pytest.mark.parametrize(
        "distributions",
        [
            {"learning_rate": stats.loguniform(1e-3, 1e-1), "widths": [(8,), (16,)], "dropout": [0, 0.1]},
            {"weight_decay": stats.expon(scale=0.01), "width": stats.randint(4, 20)},
            {
                "learning_rate": optuna.distributions.FloatDistribution(1e-3, 1e-1, log=True),
                "widths": optuna.distributions.CategoricalDistribution(["8-8", "16"]),
            },
            {"depth": Int(1, 2), "width": Categorical((4, 8)), "dropout": Float(0, 0.5)},
            SearchSpace({"depth": Int(1, 2), "width": Int(4, 8)}),
            "small",
            [{"widths": [(4,)], "learning_rate": stats.uniform(0.001, 0.1)}, {"width": range(5, 9)}],
            {"learning_rate": {"type": "float", "low": 0.001, "high": 0.1, "log": True}, "momentum": 0.8},
        ],
        ids=["scipy", "scipy, no ends", "optuna", "domains", "space", "preset", "two mappings", "a file's"],
    )
    def test_random_candidates(self, distributions: Any, two: tuple[np.ndarray, np.ndarray]) -> None:
        search = PackedSearchCV(
            classifier(max_epochs=2), distributions, n_trials=6, cv=2, random_state=0, n_jobs=1
        ).fit(*two)
        params = search.cv_results_["params"]
        assert len(params) == search.n_trials_ == 6
        assert len({str(sorted(one.items())) for one in params}) == 6
        for one in params:
            for name, value in one.items():
                if name in MLPConfig().to_dict():
                    MLPConfig(**{name: value})
        if not isinstance(distributions, (str, SearchSpace, list)):
            assert set(params[0]) <= set(distributions)

    def test_integers_of_scipy_are_integers(self, two: tuple[np.ndarray, np.ndarray]) -> None:
        widths = {"width": stats.binom(20, 0.5), "learning_rate": [0.01, 0.02, 0.03]}
        search = PackedSearchCV(classifier(max_epochs=1), widths, n_trials=8, cv=2, random_state=0).fit(*two)
        assert all(type(one["width"]) is int for one in search.cv_results_["params"])
        assert len({one["width"] for one in search.cv_results_["params"]}) > 2

    def test_a_distribution_with_only_rvs(self, two: tuple[np.ndarray, np.ndarray]) -> None:
        class Halves:
            def rvs(self, random_state: np.random.RandomState) -> float:
                return float(2.0 ** -random_state.randint(3, 9))

        search = PackedSearchCV(classifier(max_epochs=1), {"learning_rate": Halves()}, n_trials=4, cv=2)
        rates = {one["learning_rate"] for one in search.fit(*two).cv_results_["params"]}
        assert len(rates) == 4
        assert rates <= {2.0**-power for power in range(3, 9)}

    def test_fewer_candidates_than_n_trials(self, two: tuple[np.ndarray, np.ndarray]) -> None:
        search = PackedSearchCV(classifier(max_epochs=1), {"dropout": [0.0, 0.1, 0.2]}, n_trials=9, cv=2)
        with pytest.warns(PMLPWarning, match="only 3 different candidates"):
            assert search.fit(*two).n_trials_ == 3

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"n_trials": 3},
                "n_trials must be left out with param_grid, which lists all candidates, but got 3",
            ),
            ({"sampler": "random"}, "sampler must be left out with param_grid"),
            ({"param_distributions": "small"}, "param_distributions must be left out with param_grid"),
            ({"study": optuna.create_study(direction="maximize")}, "study must be left out with param_grid"),
            ({"param_grid": {"dropout": 0.1}}, "param_grid must be a mapping from names to lists of values"),
            ({"param_grid": {"dropout": []}}, "param_grid must be a mapping from names to lists of values"),
            ({"param_grid": {"droput": [0.1]}}, "did you mean 'dropout'"),
            ({"param_grid": {"mlp__dropout": [0.1]}}, "param_grid must name parameters|has no|mlp__dropout"),
            ({"param_grid": {"dropout": [2.0]}}, "dropout"),
        ],
    )
    def test_grids_that_cannot_be_searched(
        self, changes: dict[str, Any], message: str, two: tuple[np.ndarray, np.ndarray]
    ) -> None:
        search = PackedSearchCV(classifier(max_epochs=1), param_grid={"dropout": [0.0]}, cv=2, n_jobs=1)
        with pytest.raises(InvalidParameterError, match=message):
            search.set_params(**changes).fit(*two)

    def test_a_grid_of_conditional_names(self, two: tuple[np.ndarray, np.ndarray]) -> None:
        grid = [{"depth": [1, 2], "width_1": [4, 8], "width_2": [4]}, {"widths": [(), (3,)]}]
        params = packed(classifier(max_epochs=1), grid).fit(*two).cv_results_["params"]
        assert params == [
            {"depth": 1, "width_1": 4},
            {"depth": 1, "width_1": 8},
            {"depth": 2, "width_1": 4, "width_2": 4},
            {"depth": 2, "width_1": 8, "width_2": 4},
            {"widths": ()},
            {"widths": (3,)},
        ]

    def test_the_seed_can_be_searched(self, two: tuple[np.ndarray, np.ndarray]) -> None:
        search = packed(classifier(), {"seed": [0, 1, 2]}, scoring="neg_log_loss").fit(*two)
        assert len(set(search.cv_results_["mean_test_score"])) == 3
        assert search.best_estimator_.config_.seed == search.best_params_["seed"]


class TestStudies:
    SPACE: dict[str, Any] = {"learning_rate": Float(1e-3, 1e-1, log=True), "widths": [(4,), (8, 4)]}  # noqa: RUF012

    @pytest.fixture(autouse=True)
    def quiet(self) -> Iterator[None]:
        before = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        yield
        optuna.logging.set_verbosity(before)

    def search(self, **changes: Any) -> PackedSearchCV:
        options: dict[str, Any] = {"scoring": "neg_log_loss", "n_trials": 6, "cv": 2, "n_jobs": 1}
        return PackedSearchCV(classifier(), self.SPACE, **options | changes)

    def test_a_sampler_is_repeatable(self, two: tuple[np.ndarray, np.ndarray]) -> None:
        def run() -> PackedSearchCV:
            return self.search(sampler=optuna.samplers.TPESampler(seed=0), batch_size=2).fit(*two)

        first, second = run(), run()
        assert first.cv_results_["params"] == second.cv_results_["params"]
        np.testing.assert_array_equal(
            first.cv_results_["mean_test_score"], second.cv_results_["mean_test_score"]
        )
        values = [trial.value for trial in first.study_.trials]
        assert values == first.cv_results_["mean_test_score"].tolist()
        assert first.study_.best_value == first.best_score_
        assert first.study_.best_params["learning_rate"] == first.best_params_["learning_rate"]

    @pytest.mark.parametrize("name", ["tpe", "gp", "qmc"])
    def test_samplers_by_name(self, name: str, two: tuple[np.ndarray, np.ndarray]) -> None:
        options: dict[str, Any] = {"sampler": name, "batch_size": 4, "n_trials": 12, "max_epochs": 1}
        first, second, other = (
            self.search(random_state=seed, **options).fit(*two).cv_results_["params"] for seed in (0, 0, 1)
        )
        assert first == second
        assert first != other
        assert len(first) == 12

    def test_a_study_is_continued(self, two: tuple[np.ndarray, np.ndarray]) -> None:
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
        study.enqueue_trial({"learning_rate": 0.02, "widths": "8-4"})
        search = self.search(study=study).fit(*two)
        assert search.cv_results_["params"][0] == {"learning_rate": 0.02, "widths": (8, 4)}
        assert search.study_ is study
        search.fit(*two)
        assert len(study.trials) == 12

    def test_trials_are_pruned_at_rungs(self, two: tuple[np.ndarray, np.ndarray]) -> None:
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
        search = self.search(study=study, n_trials=9, max_epochs=9, reduction_factor=3).fit(*two)
        states = [trial.state.name for trial in study.trials]
        assert states.count("COMPLETE") == 1
        assert states.count("PRUNED") == 8
        (complete,) = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
        assert complete.value == search.best_score_
        assert sorted(complete.intermediate_values) == [1, 3]

    def test_a_failed_candidate_is_a_failed_trial(self, two: tuple[np.ndarray, np.ndarray]) -> None:
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
        space = {"optimizer": ["sgd"], "learning_rate": Categorical((1e30, 0.01))}
        search = PackedSearchCV(classifier(), space, study=study, n_trials=8, cv=2, n_jobs=1)
        with pytest.warns(UserWarning, match="non-finite"), pytest.warns(FitFailedWarning):
            search.fit(*two)
        for trial in study.trials:
            assert trial.state.name == ("FAIL" if trial.params["learning_rate"] > 1 else "COMPLETE")
        assert {trial.state.name for trial in study.trials} == {"FAIL", "COMPLETE"}

    def test_an_interrupt_leaves_no_trial_running(self, two: tuple[np.ndarray, np.ndarray]) -> None:
        def interrupted(estimator: Any, X: Any, y: Any) -> float:
            raise KeyboardInterrupt

        study = optuna.create_study(direction="maximize")
        with pytest.raises(KeyboardInterrupt):
            self.search(study=study, scoring=interrupted).fit(*two)
        assert [trial.state.name for trial in study.trials] == ["FAIL"] * 6

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"study": optuna.create_study()}, "must maximize"),
            ({"study": optuna.create_study(direction="maximize"), "sampler": "grid"}, "left out if a study"),
            (
                {
                    "sampler": optuna.samplers.RandomSampler(),
                    "param_distributions": {"beta1": stats.beta(2, 3)},
                },
                "cannot draw 'beta1'",
            ),
            (
                {"sampler": optuna.samplers.RandomSampler(), "param_distributions": [{"seed": [1]}] * 2},
                "a single mapping",
            ),
            (
                {
                    "sampler": optuna.samplers.RandomSampler(),
                    "scoring": ["accuracy", "roc_auc"],
                    "refit": False,
                },
                "refit must name the score",
            ),
        ],
    )
    def test_invalid_parameters(
        self, changes: dict[str, Any], message: str, two: tuple[np.ndarray, np.ndarray]
    ) -> None:
        with pytest.raises(InvalidParameterError, match=message):
            self.search().set_params(**changes).fit(*two)


class TestHalving:
    def test_advancing_equals_uninterrupted_training(self, two: tuple[np.ndarray, np.ndarray]) -> None:
        grid = {"widths": [(4,), (8,), (12,)], "learning_rate": [0.003, 0.01, 0.03], "dropout": [0.1]}
        options: dict[str, Any] = {"scoring": "neg_log_loss", "max_epochs": 9}
        halved = packed(classifier(), grid, reduction_factor=3, **options).fit(*two)
        whole = packed(classifier(), grid, **options).fit(*two)
        results = halved.cv_results_
        assert results["iter"].tolist() == [0] * 9 + [1] * 3 + [2]
        assert results["n_resources"].tolist() == [1] * 9 + [3] * 3 + [9]
        assert halved.best_index_ == 12
        assert halved.n_trials_ == 9
        place = whole.cv_results_["params"].index(halved.best_params_)
        assert results["mean_test_score"][12] == pytest.approx(
            whole.cv_results_["mean_test_score"][place], abs=1e-5
        )
        # the three best of the first rung advance, and their scores change
        best = np.argsort(-results["mean_test_score"][:9])[:3]
        assert [results["params"][i] for i in sorted(best)] == results["params"][9:12]
        assert np.abs(results["mean_test_score"][12] - results["mean_test_score"][:9]).min() > 1e-4

    @pytest.mark.parametrize("error_score", [-1.0, 2.0], ids=["worst", "best"])
    def test_a_failed_candidate_never_advances(
        self, error_score: float, two: tuple[np.ndarray, np.ndarray]
    ) -> None:
        grid = [{name: [value] for name, value in DIVERGES.items()}, {"dropout": [0.0, 0.1]}]
        search = packed(
            classifier(), grid, reduction_factor=2, max_epochs=4, error_score=error_score, scoring="accuracy"
        )
        with pytest.warns(FitFailedWarning, match="3 fits failed"):
            results = search.fit(*two).cv_results_
        assert results["mean_test_score"][0] == error_score
        assert (results["mean_test_score"] == error_score).sum() == 1
        assert "learning_rate" not in search.best_params_

    def test_later_batches_compete_with_earlier_ones(self, two: tuple[np.ndarray, np.ndarray]) -> None:
        search = PackedSearchCV(
            classifier(), "small", n_trials=8, batch_size=4, reduction_factor=2, max_epochs=4, cv=2,
            scoring="neg_log_loss", random_state=0, n_jobs=1,
        ).fit(*two)  # fmt: skip
        rungs = search.cv_results_["iter"].tolist()
        assert rungs.count(0) == 8
        assert search.best_score_ == np.max(
            search.cv_results_["mean_test_score"][search.cv_results_["iter"] == 2]
        )


class TestScores:
    def test_refit_can_be_a_function(self, two: tuple[np.ndarray, np.ndarray]) -> None:
        def worst(results: dict[str, Any]) -> int:
            return int(np.argmin(results["mean_test_score"]))

        search = packed(classifier(), refit=worst, scoring="neg_log_loss").fit(*two)
        assert search.best_index_ == np.argmin(search.cv_results_["mean_test_score"])
        assert search.best_estimator_.learning_rate == search.best_params_["learning_rate"]
        assert not hasattr(search, "best_score_")

    def test_without_refit_there_is_no_estimator(self, two: tuple[np.ndarray, np.ndarray]) -> None:
        search = packed(classifier()).fit(*two).set_params(refit=False).fit(*two)
        assert search.best_params_ == search.cv_results_["params"][search.best_index_]
        assert not hasattr(search, "best_estimator_")
        assert not hasattr(search, "predict")
        several = packed(classifier(), scoring=["accuracy", "roc_auc"], refit=False).fit(*two)
        assert not hasattr(several, "best_params_")
        assert {"mean_test_accuracy", "mean_test_roc_auc"} <= set(several.cv_results_)

    def test_a_function_can_return_several_scores(self, two: tuple[np.ndarray, np.ndarray]) -> None:
        def both(estimator: Any, X: Any, y: Any) -> dict[str, float]:
            return {"hits": estimator.score(X, y), "auc": get_scorer("roc_auc")(estimator, X, y)}

        search = packed(classifier(), scoring=both, refit="auc").fit(*two)
        assert search.multimetric_
        assert search.best_score_ == search.cv_results_["mean_test_auc"].max()
        halved = packed(classifier(), scoring=both, refit="auc", reduction_factor=2, max_epochs=4).fit(*two)
        assert halved.cv_results_["iter"].tolist() == [0] * 8 + [1] * 4 + [2] * 2
        with pytest.raises(ValueError, match="refit must be set to a scorer key"):
            packed(classifier(), scoring=both).fit(*two)

    def test_a_diverged_candidate_does_not_change_others(self, two: tuple[np.ndarray, np.ndarray]) -> None:
        good = {"optimizer": ["sgd"], "learning_rate": [0.01, 0.1]}
        bad = {"optimizer": ["sgd"], "learning_rate": [0.01, 1e30, 0.1]}
        expected = packed(classifier(), good, scoring="neg_log_loss").fit(*two)
        with pytest.warns(FitFailedWarning, match=r"3 fits failed.*\n.*-9"):
            search = packed(classifier(), bad, scoring="neg_log_loss", error_score=-9.0).fit(*two)
        np.testing.assert_allclose(
            search.cv_results_["mean_test_score"][[0, 2]], expected.cv_results_["mean_test_score"], atol=1e-6
        )
        assert search.cv_results_["mean_test_score"][1] == -9.0
        assert search.best_params_ == expected.best_params_
        with pytest.raises(SearchFailedError, match="stopped being finite"):
            packed(classifier(), bad, error_score="raise").fit(*two)
        with pytest.raises(ValueError, match="All the 3 fits failed"):
            packed(classifier(), {name: [value] for name, value in DIVERGES.items()}).fit(*two)

    def test_a_failing_scorer(self, two: tuple[np.ndarray, np.ndarray]) -> None:
        def fails(estimator: Any, X: Any, y: Any) -> float:
            if estimator.dropout > 0:
                raise RuntimeError("scorer failed")
            return 1.0

        grid = {"dropout": [0.0, 0.5]}
        with pytest.warns(UserWarning, match="scorer failed"):
            search = packed(classifier(), grid, scoring=fails, error_score=0.0).fit(*two)
        assert search.cv_results_["mean_test_score"].tolist() == [1.0, 0.0]
        with pytest.raises(RuntimeError, match="scorer failed"):
            packed(classifier(), grid, scoring=fails, error_score="raise").fit(*two)

    def test_no_informative_column(self) -> None:
        X, y = np.zeros((30, 2)), np.arange(30) % 3 == 0
        with pytest.warns(DataWarning, match="no informative column"):
            search = packed(classifier(), {"dropout": [0.0, 0.1]}).fit(X, y)
        assert search.cv_results_["mean_test_score"].tolist() == pytest.approx([2 / 3, 2 / 3])

    def test_verbose(self, two: tuple[np.ndarray, np.ndarray], capsys: pytest.CaptureFixture[str]) -> None:
        packed(classifier(max_epochs=1), {"dropout": [0.0, 0.1]}, verbose=2).fit(*two)
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "Fitting 3 folds for each of 2 candidates, totalling 6 fits"
        assert sum(line.startswith("[CV ") for line in lines) == 6


class TestEstimator:
    def test_seeds(self, two: tuple[np.ndarray, np.ndarray]) -> None:
        def run(**changes: Any) -> PackedSearchCV:
            options: dict[str, Any] = {"n_trials": 8, "max_epochs": 4, "cv": 2, "scoring": "neg_log_loss"}
            options |= {"random_state": 0, "n_jobs": 1}
            return PackedSearchCV(None, "small", **options | changes).fit(*two)

        first, again, other, more_workers, smaller = (
            run(), run(), run(random_state=1), run(n_jobs=2), run(batch_size=3)
        )  # fmt: skip
        scores = first.cv_results_["mean_test_score"]
        np.testing.assert_array_equal(scores, again.cv_results_["mean_test_score"])
        np.testing.assert_array_equal(scores, more_workers.cv_results_["mean_test_score"])
        np.testing.assert_array_equal(first.predict_proba(two[0]), again.predict_proba(two[0]))
        assert first.cv_results_["params"] == smaller.cv_results_["params"]
        np.testing.assert_allclose(scores, smaller.cv_results_["mean_test_score"], atol=1e-3)
        assert first.cv_results_["params"] != other.cv_results_["params"]
        # other candidates have other scores
        assert np.abs(scores - other.cv_results_["mean_test_score"]).max() > 1e-3

    def test_processes_give_the_same_results(
        self, two: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        grid = {"widths": [(8,), (16, 8)], "dropout": [0.0, 0.2]}
        options: dict[str, Any] = {"scoring": "neg_log_loss", "reduction_factor": 2, "refit": False}
        alone = packed(classifier(), grid, **options).fit(*two)
        started: list[float] = []
        expect = Workers.expect

        def noted(self: Workers, seconds: float) -> None:
            started.append(seconds)
            expect(self, 1000.0)

        monkeypatch.setattr(Workers, "expect", noted)
        beside = packed(classifier(), grid, n_jobs=2, **options).fit(*two)
        assert len(started) == 1
        assert 0 < started[0] < 20
        np.testing.assert_array_equal(
            alone.cv_results_["mean_test_score"], beside.cv_results_["mean_test_score"]
        )

    @pytest.mark.slow
    def test_packed_is_faster_than_grid_search(self, two: tuple[np.ndarray, np.ndarray]) -> None:
        # six times as fast on credit_g with one worker (benchmarks/search_cv.py)
        grid = GRID | {"seed": list(range(12))}
        seconds = []
        for search in (packed(classifier(), grid), GridSearchCV(classifier(), grid, cv=3, n_jobs=1)):
            started = time.perf_counter()
            search.fit(*two)
            seconds.append(time.perf_counter() - started)
        assert seconds[1] > 2 * seconds[0]

    def test_clone_and_pickle(self, two: tuple[np.ndarray, np.ndarray]) -> None:
        search = packed(classifier(), scoring="roc_auc").fit(*two)
        again = pickle.loads(pickle.dumps(search))
        np.testing.assert_array_equal(again.predict_proba(two[0]), search.predict_proba(two[0]))
        same_results(again.cv_results_, search.cv_results_)
        copy = clone(search)
        assert not hasattr(copy, "cv_results_")
        assert copy.get_params()["param_distributions"] == GRID
        assert copy.get_params()["estimator__max_epochs"] == 8

    @pytest.mark.parametrize("task", ["classes", "numbers"])
    def test_the_target_determines_the_default_estimator(
        self, task: str, two: tuple[np.ndarray, np.ndarray]
    ) -> None:
        X, y = two[0], two[1] if task == "classes" else two[0][:, 0]
        search = PackedSearchCV(None, {"dropout": [0.0]}, sampler="grid", max_epochs=2, cv=3)
        assert not is_classifier(search)
        assert not is_regressor(search)
        search.fit(X, y)
        assert is_classifier(search) is (task == "classes")
        assert is_regressor(search) is (task == "numbers")
        assert search.n_splits_ == 3
        result = cross_validate(search, X, y, cv=2, scoring="accuracy" if task == "classes" else "r2")
        assert np.isfinite(result["test_score"]).all()

    def test_metadata_routing(self, two: tuple[np.ndarray, np.ndarray]) -> None:
        weight, groups = np.random.default_rng(0).random(150), np.arange(150) % 6
        grid = {"learning_rate": [0.01, 0.03]}
        with config_context(enable_metadata_routing=True):
            scorer = get_scorer("neg_log_loss").set_score_request(sample_weight=True)
            network = classifier().set_fit_request(sample_weight=True)
            options: dict[str, Any] = {"cv": GroupKFold(3), "scoring": scorer}
            theirs = GridSearchCV(network, grid, **options).fit(*two, sample_weight=weight, groups=groups)
            ours = packed(network, grid, **options).fit(*two, sample_weight=weight, groups=groups)
            same_results(ours.cv_results_, theirs.cv_results_)
            assert ours.score(*two, sample_weight=weight) == pytest.approx(
                theirs.score(*two, sample_weight=weight)
            )
            # inside a pipeline, with the default estimator of the target
            search = PackedSearchCV(None, grid, sampler="grid", max_epochs=2, **options)
            model = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), search)
            model.fit(*two, sample_weight=weight, groups=groups)
            plain = packed(classifier(), grid, **options | {"scoring": "accuracy"})
            plain.fit(*two, groups=groups)
            with pytest.raises(ValueError, match="sample_weight"):
                packed(classifier(), grid).fit(*two, sample_weight=weight)
        assert np.abs(ours.cv_results_["mean_test_score"] - plain.cv_results_["mean_test_score"]).max() > 0

    def test_metadata_routing_inside_a_pipeline(self, two: tuple[np.ndarray, np.ndarray]) -> None:
        weight = np.random.default_rng(0).random(150)
        grid = {"mlp__learning_rate": [0.01, 0.03]}
        with config_context(enable_metadata_routing=True):
            scale = StandardScaler().set_fit_request(sample_weight=False)
            pipeline = Pipeline([("scale", scale), ("mlp", classifier().set_fit_request(sample_weight=True))])
            scorer = get_scorer("roc_auc").set_score_request(sample_weight=False)
            theirs = GridSearchCV(pipeline, grid, cv=3, scoring=scorer).fit(*two, sample_weight=weight)
            ours = packed(pipeline, grid, scoring=scorer).fit(*two, sample_weight=weight)
        same_results(ours.cv_results_, theirs.cv_results_)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"param_distributions": {"learning_rat": [0.1]}}, "did you mean 'learning_rate'"),
            ({"param_distributions": {"dropout": [1.5]}}, "dropout must be a number in"),
            ({"param_distributions": {"dropout": []}}, "at least one value"),
            (
                {"param_distributions": {"dropout": stats.uniform(0, 0.5)}},
                "needs finitely many values of 'dr",
            ),
            ({"param_distributions": {"dropout": stats.beta(2, 3)}}, "needs finitely many values of 'dr"),
            ({"param_distributions": "smal"}, "did you mean 'small'"),
            ({"param_distributions": 3}, "must be a mapping, a list of mappings"),
            ({"sampler": "gird"}, "did you mean 'grid'"),
            ({"n_trials": 4}, "n_trials must be left out"),
            ({"sampler": "random", "n_trials": 0}, "n_trials must be an integer >= 1"),
            ({"reduction_factor": 1}, "reduction_factor must be an integer >= 2"),
            ({"batch_size": "all"}, "batch_size must be 'auto' or an integer"),
            ({"error_score": "rise"}, "error_score must be 'raise' or a number"),
            ({"max_epochs": 0}, "max_epochs must be an integer >= 1"),
            ({"estimator": ParallelMLPClassifier()}, "must be a SingleMLPClassifier"),
            ({"estimator": classifier(activation="rellu")}, "did you mean 'relu'"),
            (
                {"estimator": make_pipeline(StandardScaler(), classifier())},
                "did you mean 'singlemlpclassifier__dropout'",
            ),
            (
                {
                    "estimator": make_pipeline(StandardScaler(), classifier()),
                    "param_distributions": {"standardscaler__with_mean": [True]},
                },
                "must name parameters of the network",
            ),
        ],
    )
    def test_invalid_parameters(
        self, changes: dict[str, Any], message: str, two: tuple[np.ndarray, np.ndarray]
    ) -> None:
        with pytest.raises(InvalidParameterError, match=message):
            packed(classifier(), {"dropout": [0.1]}).set_params(**changes).fit(*two)

    def test_callbacks_are_refused(self) -> None:
        with pytest.raises(InvalidParameterError, match="takes no callbacks"):
            packed(classifier()).set_callbacks(object())
