"""Optuna: studies whose trials are trained in packed batches, samplers, storages, conversion of spaces."""

from parallelmlp_search.integrations.optuna.compatibility import constraints_of
from parallelmlp_search.integrations.optuna.sampler.refinement import RefinementSampler
from parallelmlp_search.integrations.optuna.storage.storages import open_storage, open_study
from parallelmlp_search.integrations.optuna.study.callback import OptunaCallback
from parallelmlp_search.integrations.optuna.study.candidate import Candidate
from parallelmlp_search.integrations.optuna.study.distributed_study import SharedStudy
from parallelmlp_search.integrations.optuna.study.objective import PackedObjective
from parallelmlp_search.integrations.optuna.study.optimize import optimize
from parallelmlp_search.integrations.optuna.study.pruner import RungPruner
from parallelmlp_search.integrations.optuna.study.run_study import configs_from_study, study_from_run
from parallelmlp_search.integrations.optuna.study.suggest import suggest
from parallelmlp_search.search.proposals.distributions import (
    space_from_distributions,
    space_to_distributions,
)

__all__ = [
    "Candidate",
    "OptunaCallback",
    "PackedObjective",
    "RefinementSampler",
    "RungPruner",
    "SharedStudy",
    "configs_from_study",
    "constraints_of",
    "open_storage",
    "open_study",
    "optimize",
    "space_from_distributions",
    "space_to_distributions",
    "study_from_run",
    "suggest",
]
