"""A search space: which configurations may be tried, and how to draw, vary and list them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from parallelmlp_search.exceptions import InvalidParameterError, near_miss
from parallelmlp_search.space.config import FIELD_NAMES, REMOVED_FIELDS, MLPConfig, check_removed
from parallelmlp_search.space.domain_base import Domain
from parallelmlp_search.space.domains import domain_from_dict
from parallelmlp_search.space.files import SUFFIXES, read_mapping, write_mapping
from parallelmlp_search.space.listing import any_combination, combinations, count
from parallelmlp_search.space.presets import PRESETS
from parallelmlp_search.space.structure import Structure

__all__ = ["SearchSpace"]

_LARGEST_GRID = 5_000_000
_LARGEST_LISTING = 100_000
# Twenty-five known configurations in a row mean that about nine in ten are known, and listing the rest is
# cheaper than looking for it. A space too large to list is only given up on when it yields nothing any more.
_FEW_REJECTIONS = 25
_MANY_REJECTIONS = 5_000


class SearchSpace:
    """Names and their domains; immutable and hashable.

    Parameters
    ----------
    domains
        Domain of each name. Names are fields of `MLPConfig` and the structural ``depth``, ``width`` (all
        hidden layers that width) and ``width_1``, ``width_2``, ... (each its own, active where the network is
        that deep), which build ``widths``. Fields without a domain keep the default of `MLPConfig`.

    Raises
    ------
    InvalidParameterError
        If a name or a value could not occur in a configuration, or conditions are circular.

    Notes
    -----
    ``values`` stands for a dict of the active names only. The unit cube has one dimension a name, in the
    order of `names`; dimensions of inactive names are ignored.

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
        """Domain of each name, as given."""
        return MappingProxyType(self._structure.domains)

    @property
    def names(self) -> tuple[str, ...]:
        """Names in the order in which they are decided: conditions come before what depends on them."""
        return self._structure.names

    @property
    def n_dimensions(self) -> int:
        """Dimensions of the unit cube that `from_unit` reads."""
        return len(self._structure.names)

    # Drawing

    def sample(
        self, n: int, rng: np.random.Generator, *, exclude: Iterable[MLPConfig] = ()
    ) -> list[MLPConfig]:
        """Random configurations, no two alike and none of ``exclude``.

        Two configurations are alike if they differ in nothing but the seed, unless the space names ``seed``.
        Each gets a seed of its own from ``rng``, again unless the space names it.

        Returns
        -------
        list of MLPConfig
            ``n`` of them, fewer where the space holds no more.
        """
        if n < 0:
            raise InvalidParameterError(f"n must be >= 0, but got {n!r}")
        seen = {self.key(config) for config in exclude}
        patience = _FEW_REJECTIONS if self.size() <= _LARGEST_LISTING else _MANY_REJECTIONS
        found: list[MLPConfig] = []
        rejected = 0
        while len(found) < n:
            config = self._configure(self.sample_values(rng), rng)
            key = self.key(config)
            if key in seen:
                rejected += 1
                # So many draws in a row without anything new: little is left, so list it instead.
                if rejected >= patience:
                    found += self._remaining(n - len(found), seen, rng)
                    break
                continue
            rejected = 0
            seen.add(key)
            found.append(config)
        return found

    def sample_values(self, rng: np.random.Generator) -> dict[str, Any]:
        """Random values of the active names."""
        return self._from_unit(rng.random(len(self._structure.names)).tolist())

    def from_unit(self, vector: Sequence[float] | np.ndarray[Any, Any]) -> dict[str, Any]:
        """Values at a point of the unit cube, shape ``(n_dimensions,)``, each coordinate in [0, 1)."""
        point = [float(u) for u in vector]
        if len(point) != len(self._structure.names):
            raise InvalidParameterError(
                f"vector must have {len(self._structure.names)} coordinates, but got {len(point)}"
            )
        return self._from_unit(point)

    def to_unit(self, values: Mapping[str, Any]) -> list[float]:
        """Point of the unit cube that `from_unit` maps to the values; 0.5 where a name is inactive."""
        self._check_values(values)
        return [
            self._structure.domains[name].unit(values[name]) if name in values else 0.5
            for name in self._structure.names
        ]

    def is_active(self, name: str, values: Mapping[str, Any]) -> bool:
        """Whether a name counts, given the values of the active names that come before it in `names`."""
        return self._structure.is_active(name, values)

    # Values and configurations

    def to_config(self, values: Mapping[str, Any], seed: int = 0) -> MLPConfig:
        """Configuration of some values; ``seed`` is used unless the values name one.

        Raises
        ------
        InvalidParameterError
            If a name is missing, inactive or unknown, or a value is outside its domain.
        """
        self._check_values(values)
        return self._structure.build(values, seed)

    def to_values(self, config: MLPConfig) -> dict[str, Any]:
        """Values of the active names that give this configuration; the inverse of `to_config`.

        Raises
        ------
        InvalidParameterError
            If the configuration is not of this space.
        """
        values: dict[str, Any] = {}
        for name in self._structure.names:
            if self._structure.depth is not None and config.depth != self._structure.depth:
                raise InvalidParameterError(
                    f"depth must be {self._structure.depth} in this space, but got {config.depth}"
                )
            if self._structure.is_active(name, values):
                value = self._structure.read(config, name)
                if not self._structure.domains[name].contains(value):
                    raise InvalidParameterError(
                        f"{name} must belong to {self._structure.domains[name]!r}, but got {value!r}"
                    )
                values[name] = value
        built = self._structure.build(values, config.seed)
        for field in FIELD_NAMES:
            expected, actual = getattr(built, field), getattr(config, field)
            if expected != actual:
                raise InvalidParameterError(f"{field} must be {expected!r} here, but got {actual!r}")
        return values

    def contains(self, config: MLPConfig) -> bool:
        """Whether the space could give this configuration; the seed counts only where the space names it."""
        try:
            self.to_values(config)
        except InvalidParameterError:
            return False
        return True

    def key(self, config: MLPConfig) -> tuple[object, ...]:
        """What tells configurations apart here: everything, the seed only where the space names it."""
        identity = config.identity()
        return (*identity, config.seed) if "seed" in self._structure.domains else identity

    # Listing

    def size(self) -> int | float:
        """Number of different configurations; ``math.inf`` where an active domain is continuous."""
        return count(self._structure, lambda domain: domain.n_values, lambda domain: domain.grid())

    def grid(self, resolution: int | None = None) -> list[MLPConfig]:
        """Every combination of at most ``resolution`` values a domain, first name slowest.

        None takes all values and needs a finite space. Categorical domains always give all their choices.
        Seeds are 0 unless the space names them.
        """
        points = self.grid_size(resolution)
        if points > _LARGEST_GRID:
            raise InvalidParameterError(
                f"a grid may hold at most {_LARGEST_GRID} points, but this holds {points}"
            )
        return [self._structure.build(values, 0) for values in combinations(self._structure, resolution)]

    def grid_size(self, resolution: int | None = None) -> int | float:
        """Number of points of `grid`, found without listing them."""
        return count(self._structure, lambda d: len(d.grid(resolution)), lambda d: d.grid(resolution))

    def grid_point(self, resolution: int, rng: np.random.Generator) -> MLPConfig:
        """A point of `grid` at random, in each domain all values alike; the grid may be of any size."""
        return self._structure.build(any_combination(self._structure, resolution, rng), 0)

    # Varying

    def mutate(self, config: MLPConfig, rng: np.random.Generator, scale: float = 0.2) -> MLPConfig:
        """A configuration near this one: about two of its names moved, by ``scale`` of their domain.

        Names that become active by the move are drawn afresh. Where the space does not name ``seed``, the
        result gets a new one.
        """
        values = self.to_values(config)
        free = [name for name in values if self._structure.domains[name].n_values > 1]
        moves = {name for name in free if rng.random() < 2.0 / len(free)}
        if free and not moves:
            moves = {free[int(rng.integers(len(free)))]}
        result: dict[str, Any] = {}
        for name in self._structure.names:
            if not self._structure.is_active(name, result):
                continue
            domain = self._structure.domains[name]
            if name not in values:
                result[name] = domain.sample(rng)
            elif name in moves:
                result[name] = domain.neighbour(values[name], rng, scale)
            else:
                result[name] = values[name]
        return self._configure(result, rng)

    def crossover(self, a: MLPConfig, b: MLPConfig, rng: np.random.Generator) -> MLPConfig:
        """A configuration that takes each name from one of two parents at random.

        A name that is active in the child and in neither parent is drawn afresh.
        """
        parents = (self.to_values(a), self.to_values(b))
        result: dict[str, Any] = {}
        for name in self._structure.names:
            if self._structure.is_active(name, result):
                offers = [values[name] for values in parents if name in values]
                chosen = (
                    offers[int(rng.integers(len(offers)))]
                    if offers
                    else self._structure.domains[name].sample(rng)
                )
                result[name] = chosen
        return self._configure(result, rng)

    # Files

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """The space as values that JSON, YAML and TOML can hold; `from_dict` is the inverse."""
        return {name: domain.to_dict() for name, domain in self._structure.domains.items()}

    @classmethod
    def from_dict(cls, spec: Mapping[str, Any]) -> SearchSpace:
        """Space from a mapping of names to what `domain_from_dict` reads.

        A list stands for its choices and a bare value for a constant, so that
        ``{"activation": ["relu", "tanh"], "batch_size": 128}`` is a space. Fields that were removed are
        dropped where all their values change nothing.

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
        """Space from a file that ends in .yaml, .yml, .toml or .json."""
        return cls.from_dict(read_mapping(path))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the space to a file that ends in .yaml, .yml, .toml or .json."""
        write_mapping(path, self.to_dict())

    @classmethod
    def preset(cls, name: str) -> SearchSpace:
        """One of the named spaces: ``"paper"``, ``"small"``, ``"default"`` or ``"deep"``."""
        if name not in PRESETS:
            raise InvalidParameterError(
                f"preset must be one of {', '.join(PRESETS)}, but got {name!r}{near_miss(str(name), PRESETS)}"
            )
        return cls(PRESETS[name])

    @classmethod
    def resolve(cls, spec: SearchSpace | str | os.PathLike[str] | Mapping[str, Any]) -> SearchSpace:
        """Space from whatever a user may give: a space, a preset's name, a file or a mapping."""
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
        """Same names with the same domains in the same order: such spaces draw alike."""
        if not isinstance(other, SearchSpace):
            return NotImplemented
        return list(self._structure.domains.items()) == list(other.domains.items())

    def __hash__(self) -> int:
        return hash(tuple(self._structure.domains.items()))

    def __repr__(self) -> str:
        inner = ", ".join(f"{name!r}: {domain!r}" for name, domain in self._structure.domains.items())
        return f"SearchSpace({{{inner}}})"

    # Inner workings

    def _from_unit(self, point: Sequence[float]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, u in zip(self._structure.names, point, strict=True):
            if self._structure.is_active(name, values):
                values[name] = self._structure.domains[name].quantile(u)
        return values

    def _configure(self, values: Mapping[str, Any], rng: np.random.Generator) -> MLPConfig:
        # Drawn whether or not it is used, so that naming `seed` does not shift the stream of the others.
        return self._structure.build(values, int(rng.integers(2**31)))

    def _check_values(self, values: Mapping[str, Any]) -> None:
        for name in values:
            if name not in self._structure.domains:
                raise InvalidParameterError(
                    f"the space has no name {name!r}{near_miss(str(name), self._structure.domains)}"
                )
        decided: dict[str, Any] = {}
        for name in self._structure.names:
            active = self._structure.is_active(name, decided)
            if active != (name in values):
                state = "missing, but active" if active else "given, but inactive"
                raise InvalidParameterError(f"{name} is {state} under the other values")
            if active:
                if not self._structure.domains[name].contains(values[name]):
                    raise InvalidParameterError(
                        f"{name} must belong to {self._structure.domains[name]!r}, but got {values[name]!r}"
                    )
                decided[name] = values[name]

    def _remaining(self, n: int, seen: set[tuple[object, ...]], rng: np.random.Generator) -> list[MLPConfig]:
        """Up to ``n`` of the configurations not yet seen, by listing them, where they are few enough."""
        if self.size() > _LARGEST_LISTING:
            return []
        left = [
            v
            for v in combinations(self._structure, None)
            if self.key(self._structure.build(v, 0)) not in seen
        ]
        chosen = rng.permutation(len(left))[:n]
        return [self._configure(left[int(i)], rng) for i in chosen]
