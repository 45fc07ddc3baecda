"""Search spaces: sampling, varying and enumerating configurations."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from parallelmlp_search.exceptions import InvalidParameterError, near_miss
from parallelmlp_search.space.config import REMOVED_FIELDS, MLPConfig, check_removed
from parallelmlp_search.space.domain_base import Domain
from parallelmlp_search.space.domains import domain_from_dict
from parallelmlp_search.space.enumeration import combinations, count_combinations
from parallelmlp_search.space.files import SUFFIXES, read_mapping, write_mapping
from parallelmlp_search.space.presets import PRESETS
from parallelmlp_search.space.structure import Structure

_MAX_GRID_POINTS = 5_000_000
_MAX_ENUMERATED = 100_000
"""Size of a space up to which `SearchSpace.sample` enumerates what is left of it."""

# After 25 known configurations in a row about nine in ten are known, and enumerating the rest is cheaper.
# A larger space is given up after 5,000.
_MAX_REJECTIONS_SMALL = 25
_MAX_REJECTIONS_LARGE = 5_000


class SearchSpace:
    """Names and their domains. Immutable and hashable.

    Parameters
    ----------
    domains
        Domain of each name. Names are fields of `MLPConfig`, ``depth``, ``width`` (of all hidden layers) and
        ``width_1``, ``width_2``, ... (of one layer each, active where the network is that deep). The last
        three build ``widths``. Fields without a domain keep the default of `MLPConfig`.

    Raises
    ------
    InvalidParameterError
        If a name or a value could not occur in a configuration, or conditions are circular.

    Notes
    -----
    ``values`` is a dict of the active names only. The unit cube has one dimension per name, in the order of
    `names`; dimensions of inactive names are ignored.

    Examples
    --------
    >>> space = SearchSpace({"depth": Int(1, 2), "width": Int(8, 64), "dropout": Float(0, 0.5)})
    >>> configs = space.sample(100, np.random.default_rng(0))
    """

    __slots__ = ("_structure",)

    def __init__(self, domains: Mapping[str, Domain]) -> None:
        self._structure = Structure(domains)

    @property
    def domains(self) -> Mapping[str, Domain]:
        """Domain of each name, in the order given."""
        return MappingProxyType(self._structure.domains)

    @property
    def names(self) -> tuple[str, ...]:
        """Names in an order in which each comes after the names that its conditions refer to."""
        return self._structure.names

    @property
    def n_dimensions(self) -> int:
        """Number of dimensions of the unit cube."""
        return len(self.names)

    # Sampling

    def sample(
        self, n: int, rng: np.random.Generator, *, exclude: Iterable[MLPConfig] = ()
    ) -> list[MLPConfig]:
        """Return distinct random configurations.

        Seeds are not compared, and each configuration gets its own seed, unless the space names ``seed``.

        Parameters
        ----------
        n
            Number of configurations, >= 0.
        rng
            Source of random numbers.
        exclude
            Configurations to leave out.

        Returns
        -------
        list of MLPConfig
            ``n`` configurations, or fewer if the space holds no more.

        Raises
        ------
        InvalidParameterError
            If ``n`` is negative.
        """
        if n < 0:
            raise InvalidParameterError(f"n must be >= 0, but got {n!r}")
        seen = {self.key(config) for config in exclude}
        max_rejections = _MAX_REJECTIONS_SMALL if self.size() <= _MAX_ENUMERATED else _MAX_REJECTIONS_LARGE
        found: list[MLPConfig] = []
        rejected = 0
        while len(found) < n:
            config = self._configure(self.sample_values(rng), rng)
            key = self.key(config)
            if key in seen:
                rejected += 1
                if rejected >= max_rejections:
                    found += self._sample_remaining(n - len(found), seen, rng)
                    break
                continue
            rejected = 0
            seen.add(key)
            found.append(config)
        return found

    def sample_values(self, rng: np.random.Generator) -> dict[str, Any]:
        """Return random values of the active names."""
        return self.from_unit(rng.random(self.n_dimensions))

    def from_unit(self, vector: Sequence[float] | np.ndarray[Any, Any]) -> dict[str, Any]:
        """Return the values at a point of the unit cube, shape ``(n_dimensions,)``, entries in [0, 1).

        Raises
        ------
        InvalidParameterError
            If the number of coordinates is wrong, or one is outside [0, 1).
        """
        if len(vector) != self.n_dimensions:
            raise InvalidParameterError(
                f"vector must have {self.n_dimensions} coordinates, but got {len(vector)}"
            )
        point = dict(zip(self.names, map(float, vector), strict=True))
        return self._structure.choose(lambda name, domain: domain.quantile(point[name]))

    def to_unit(self, values: Mapping[str, Any]) -> list[float]:
        """Return the point of the unit cube that `from_unit` maps to the values; 0.5 for inactive names."""
        self._structure.check(values)
        return [self.domains[name].unit(values[name]) if name in values else 0.5 for name in self.names]

    def is_active(self, name: str, values: Mapping[str, Any]) -> bool:
        """Return True if a name is active, given the values of the active names before it in `names`."""
        return self._structure.is_active(name, values)

    # Values and configurations

    def to_config(self, values: Mapping[str, Any], seed: int = 0) -> MLPConfig:
        """Return the configuration of some values; ``seed`` is used unless the values hold one.

        Raises
        ------
        InvalidParameterError
            If a name is missing, inactive or unknown, or a value is outside its domain.
        """
        self._structure.check(values)
        return self._structure.build(values, seed)

    def to_values(self, config: MLPConfig) -> dict[str, Any]:
        """Return the values of the active names in a configuration; the inverse of `to_config`.

        Raises
        ------
        InvalidParameterError
            If the configuration is not in this space.
        """
        return self._structure.values_of(config)

    def contains(self, config: MLPConfig) -> bool:
        """Return True if the space holds the configuration; the seed is compared only if it has a domain."""
        try:
            self.to_values(config)
        except InvalidParameterError:
            return False
        return True

    def key(self, config: MLPConfig) -> tuple[object, ...]:
        """Return a hashable identity: all fields, the seed only if it has a domain."""
        identity = config.identity()
        return (*identity, config.seed) if "seed" in self.domains else identity

    # Enumerating

    def size(self) -> int | float:
        """Return the number of distinct configurations; ``math.inf`` if an active domain is continuous."""
        return count_combinations(self._structure, None)

    def grid(self, resolution: int | None = None) -> list[MLPConfig]:
        """Return every combination of at most ``resolution`` values per domain, the first name slowest.

        None takes all values. Categorical domains always give all their choices. Seeds are 0 unless the space
        names them.

        Raises
        ------
        InvalidParameterError
            If the grid is too large, or ``resolution`` is None and a domain is continuous.
        """
        n_points = self.grid_size(resolution)
        if n_points > _MAX_GRID_POINTS:
            raise InvalidParameterError(
                f"a grid may hold at most {_MAX_GRID_POINTS} points, but this holds {n_points}"
            )
        return [self._structure.build(values, 0) for values in combinations(self._structure, resolution)]

    def grid_size(self, resolution: int | None = None) -> int:
        """Return the number of points of `grid` without building it.

        Raises
        ------
        InvalidParameterError
            If ``resolution`` is None and an active domain is continuous.
        """
        n_points = count_combinations(self._structure, resolution)
        if math.isinf(n_points):
            raise InvalidParameterError("resolution must be given for a space with continuous domains")
        return int(n_points)

    def grid_point(self, resolution: int, rng: np.random.Generator) -> MLPConfig:
        """Return a random point of a `grid` of any size, all values of a domain being equally likely."""

        def pick(_: str, domain: Domain) -> Any:
            values = domain.grid(resolution)
            return values[rng.integers(len(values))]

        return self._structure.build(self._structure.choose(pick), 0)

    # Varying

    def mutate(self, config: MLPConfig, rng: np.random.Generator, scale: float = 0.2) -> MLPConfig:
        """Return a configuration near another one, in which about two names are moved.

        Names that become active get random values. The seed is new unless the space names ``seed``.

        Parameters
        ----------
        config
            Configuration of this space.
        rng
            Source of random numbers.
        scale
            Standard deviation of the moves in units of the domains.

        Returns
        -------
        MLPConfig
            Configuration of this space.
        """
        values = self.to_values(config)
        free = [name for name in values if self.domains[name].n_values > 1]
        moved = {name for name in free if rng.random() < 2.0 / len(free)}
        if free and not moved:
            moved = {free[int(rng.integers(len(free)))]}

        def vary(name: str, domain: Domain) -> Any:
            if name not in values:
                return domain.sample(rng)
            return domain.neighbour(values[name], rng, scale) if name in moved else values[name]

        return self._configure(self._structure.choose(vary), rng)

    def crossover(self, a: MLPConfig, b: MLPConfig, rng: np.random.Generator) -> MLPConfig:
        """Return a configuration that takes each name from one of two parents at random.

        A name that is active in neither parent gets a random value.

        Parameters
        ----------
        a, b
            Configurations of this space.
        rng
            Source of random numbers.

        Returns
        -------
        MLPConfig
            Configuration of this space.
        """
        parents = (self.to_values(a), self.to_values(b))

        def inherit(name: str, domain: Domain) -> Any:
            offers = [values[name] for values in parents if name in values]
            return offers[int(rng.integers(len(offers)))] if offers else domain.sample(rng)

        return self._configure(self._structure.choose(inherit), rng)

    # Files

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return plain values that JSON, YAML and TOML can hold; `from_dict` is the inverse."""
        return {name: domain.to_dict() for name, domain in self.domains.items()}

    @classmethod
    def from_dict(cls, spec: Mapping[str, Any]) -> SearchSpace:
        """Return the space that a mapping of names describes, each as in `domain_from_dict`.

        A list holds choices and another value is a constant: ``{"activation": ["relu", "tanh"],
        "batch_size": 128}`` is a space. Removed fields are dropped if they do not change the network.

        Raises
        ------
        InvalidParameterError
            If a name is unknown, a domain is not valid, or a removed field changes the network.
        """
        domains: dict[str, Domain] = {}
        for name, domain in spec.items():
            try:
                domains[str(name)] = domain if isinstance(domain, Domain) else domain_from_dict(domain)
            except InvalidParameterError as error:
                raise InvalidParameterError(f"the domain of {name!r} is not valid: {error}") from None
        for name in REMOVED_FIELDS.keys() & domains.keys():
            for value in domains.pop(name).grid(2):
                check_removed(name, value)
        return cls(domains)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SearchSpace:
        """Return the space in a .yaml, .yml, .toml or .json file."""
        return cls.from_dict(read_mapping(path))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the space to a .yaml, .yml, .toml or .json file."""
        write_mapping(path, self.to_dict())

    @classmethod
    def preset(cls, name: str) -> SearchSpace:
        """Return one of the presets ``"paper"``, ``"small"``, ``"default"`` and ``"deep"``.

        Raises
        ------
        InvalidParameterError
            If there is no preset of this name.
        """
        if name not in PRESETS:
            raise InvalidParameterError(
                f"preset must be one of {', '.join(PRESETS)}, but got {name!r}{near_miss(str(name), PRESETS)}"
            )
        return cls(PRESETS[name])

    @classmethod
    def resolve(cls, spec: SearchSpace | str | os.PathLike[str] | Mapping[str, Any]) -> SearchSpace:
        """Return the space that a user specifies by a space, a preset's name, a file or a mapping.

        Raises
        ------
        InvalidParameterError
            If it is none of these, or not valid.
        """
        if isinstance(spec, SearchSpace):
            return spec
        if isinstance(spec, Mapping):
            return cls.from_dict(spec)
        if isinstance(spec, str) and Path(spec).suffix.lower() not in SUFFIXES:
            return cls.preset(spec)
        if isinstance(spec, str | os.PathLike):
            return cls.load(spec)
        raise InvalidParameterError(
            f"search_space must be a SearchSpace, a preset's name, a path or a mapping, but got {spec!r}"
        )

    def __eq__(self, other: object) -> bool:
        """Return True for the same names and domains in the same order: such spaces sample alike."""
        if not isinstance(other, SearchSpace):
            return NotImplemented
        return list(self.domains.items()) == list(other.domains.items())

    def __hash__(self) -> int:
        return hash(tuple(self.domains.items()))

    def __repr__(self) -> str:
        inner = ", ".join(f"{name!r}: {domain!r}" for name, domain in self.domains.items())
        return f"SearchSpace({{{inner}}})"

    def _configure(self, values: Mapping[str, Any], rng: np.random.Generator) -> MLPConfig:
        # a seed is drawn even if it is not used, so that naming `seed` does not change the other values
        return self._structure.build(values, int(rng.integers(2**31)))

    def _sample_remaining(
        self, n: int, seen: set[tuple[object, ...]], rng: np.random.Generator
    ) -> list[MLPConfig]:
        """Up to ``n`` configurations that are not in ``seen``, by enumeration of a small space."""
        if self.size() > _MAX_ENUMERATED:
            return []
        left = [
            values
            for values in combinations(self._structure, None)
            if self.key(self._structure.build(values, 0)) not in seen
        ]
        return [self._configure(left[int(i)], rng) for i in rng.permutation(len(left))[:n]]
