"""Registry of tools and of variants of our own search.

A tool is one line here and one function elsewhere, ``fit(task: Task) -> Fit``. A variant is one line. Tools
are imported when they run, so each is optional.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["OURS", "QUICK_PEERS", "TOOLS", "VARIANTS", "Fit", "Task", "Tool", "find_tool", "variant_tools"]


@dataclass(frozen=True)
class Task:
    """Input of a tool.

    Attributes
    ----------
    task
        ``binary``, ``multiclass`` or ``regression``.
    features, target
        Training rows.
    categorical
        Names of the text columns with categories.
    n_classes
        Number of classes, which are numbered from 0; 0 for a regression.
    seed, threads
        Random seed, and threads to use.
    seconds
        Time limit of the whole fit, or None for a tool without one.
    settings
        Settings of the line in `TOOLS`.
    """

    task: str
    features: pd.DataFrame
    target: NDArray[Any]
    categorical: tuple[str, ...]
    n_classes: int
    seed: int
    threads: int
    seconds: float | None
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Fit:
    """Output of a tool.

    Attributes
    ----------
    predict
        Function from features to (n, classes) probabilities or (n,) values.
    notes
        Further figures for the row of results.
    """

    predict: Callable[[pd.DataFrame], NDArray[np.float64]]
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Tool:
    """Contender of the comparison.

    Attributes
    ----------
    name
        Name in results and tables.
    fit
        Function as ``module:name``.
    package
        Package that must be installed.
    timed
        True if it gets a time limit; others run to their end, up to the hard limit.
    settings
        Passed to the function.
    """

    name: str
    fit: str
    package: str
    timed: bool = False
    settings: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def is_ours(self) -> bool:
        """True if it runs in this interpreter and not in that of the peers."""
        return self.package == "parallelmlp_search"


_HERE = "benchmarks.quality"

OURS = Tool("ours", f"{_HERE}.ours:search", "parallelmlp_search", timed=True)

TOOLS: Mapping[str, Tool] = {
    tool.name: tool
    for tool in (
        OURS,
        # defaults of the libraries
        Tool("lightgbm", f"{_HERE}.boosters:lightgbm", "lightgbm"),
        Tool("catboost", f"{_HERE}.boosters:catboost", "catboost"),
        Tool("xgboost", f"{_HERE}.boosters:xgboost", "xgboost"),
        Tool("hist_gradient_boosting", f"{_HERE}.boosters:hist_gradient_boosting", "sklearn"),
        # defaults tuned on other tables by RealMLP's authors; early stopping on a fifth of the rows
        Tool("lightgbm_td", f"{_HERE}.tuned_defaults:fit", "pytabkit", settings={"model": "LGBM_TD"}),
        Tool("catboost_td", f"{_HERE}.tuned_defaults:fit", "pytabkit", settings={"model": "CatBoost_TD"}),
        Tool("realmlp_td", f"{_HERE}.tuned_defaults:fit", "pytabkit", settings={"model": "RealMLP_TD"}),
        Tool("tabm_d", f"{_HERE}.tuned_defaults:fit", "pytabkit", settings={"model": "TabM_D"}),
        # searches with the same time limit
        Tool("optuna_mlp", f"{_HERE}.optuna_mlp:search", "optuna", timed=True),
        Tool("flaml", f"{_HERE}.automl:flaml", "flaml", timed=True),
        Tool(
            "autogluon",
            f"{_HERE}.automl:autogluon",
            "autogluon.tabular",
            timed=True,
            settings={"presets": "best_quality"},
        ),
        Tool(
            "autogluon_medium",
            f"{_HERE}.automl:autogluon",
            "autogluon.tabular",
            timed=True,
            settings={"presets": "medium_quality"},
        ),
    )
}

QUICK_PEERS = ("lightgbm", "catboost", "realmlp_td", "hist_gradient_boosting", "optuna_mlp")
"""``--quick`` compares the first three that are installed; the last two always are."""

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    # name: fields of SearchSettings; "space": choices of the default space by name; "known": values for the
    # configurations that a search starts with, in turn; "module:NAME": constants
    "without one_cycle": {
        "space": {"schedule": ["cosine", "flat_cosine", "cosine_log"]},
        "known": {"schedule": ["cosine"]},
    },
    "one_cycle in the space alone": {"known": {"schedule": ["cosine"]}},
    "one_cycle for all to begin with": {"known": {"schedule": ["one_cycle"]}},
    "without refinement": {"refinement": 0.0},
    "refinement of 40 %": {"refinement": 0.4},
    "refinement of all but 10 %": {"refinement": 0.9},
    "sampler qmc": {"sampler": "qmc"},
    "sampler tpe": {"sampler": "tpe"},
    "sampler gp": {"sampler": "gp"},
    "without pieces": {"numeric_bins": 0},
    "without temperature": {"calibration": "none"},
    "with refit": {"refit": True},
    "32 pieces": {"numeric_bins": 32},
    "quantile scaling": {"scaling": "quantile"},
    "ensemble of 1": {"n_finalists": 1},
    "ensemble of at most 4": {"n_finalists": 4},
    "3 folds": {"n_folds": 3},
    "8 folds": {"n_folds": 8},
    "one in 2 advances": {"reduction_factor": 2},
    "one in 5 advances": {"reduction_factor": 5},
    "screening 15 %": {"parallelmlp_search.search.planning:SCREENING_SHARE": 0.15},
    "screening 65 %": {"parallelmlp_search.search.planning:SCREENING_SHARE": 0.65},
    "cheap and dear drawn alike": {"parallelmlp_search.search.proposals.samplers:COST_EXPONENT": 0.0},
    "finalists at any cost": {"parallelmlp_search.search.planning:MAX_FINALIST_SHARE": 1e9},
    "half as many steps": {"parallelmlp_search.search.run.budget:FAIR_STEPS": 600},
    "twice as many steps": {"parallelmlp_search.search.run.budget:FAIR_STEPS": 2400},
    "space small": {"search_space": "small"},
    # parts of the default space
    "without embeddings of numbers": {"space": {"numeric_embedding": ["none"]}},
    "without submembers": {"space": {"submembers": [1]}},
    "without scores of quantiles": {"space": {"numeric_scaling": ["common"]}},
    "without mean targets": {"space": {"target_encoding": [False]}},
    "without the order of categories": {"parallelmlp_search.data.order:MAX_LEVELS": 0},
    "without target transformations": {"space": {"target_transform": ["none"]}},
    "without dropout": {"space": {"dropout": [0.0]}, "known": {"dropout": [0.0]}},
    "weights not averaged": {"parallelmlp_search.engine.step_coefficients:AVERAGE_POWER": 1e12},
    # parts that the default space leaves out
    "smoothed labels as well": {"space": {"label_smoothing": [0.0, 0.1]}},
    "embedded categories as well": {"space": {"category_embedding": ["none", "learned"]}},
    "heads that start at zero as well": {"space": {"head_initialization": ["same", "zero"]}},
}
"""Variants of our own search for ``--ablation``."""


def variant_tools() -> dict[str, Tool]:
    """Return the variants as tools."""
    return {
        f"ours, {name}": Tool(f"ours, {name}", OURS.fit, OURS.package, timed=True, settings=settings)
        for name, settings in VARIANTS.items()
    }


def find_tool(name: str) -> Tool:
    """Return a tool or a variant by name.

    Raises
    ------
    SystemExit
        If there is none.
    """
    known = {**TOOLS, **variant_tools()}
    if name not in known:
        raise SystemExit(f"there is no tool {name!r}; the tools are {', '.join(TOOLS)}")
    return known[name]
