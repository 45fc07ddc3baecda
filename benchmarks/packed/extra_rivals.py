"""Optional rivals: scikit-learn's MLP, one at a time, and JAX's vmap over equal shapes."""

from __future__ import annotations

import itertools
import time
import warnings
from typing import Any

import numpy as np

from benchmarks.packed.cases import Case
from benchmarks.packed.rivals import spread
from parallelmlp_search.space import MLPConfig

__all__ = ["JaxVmap", "ScikitLearn"]


class ScikitLearn:
    """``MLPClassifier.fit`` for two epochs with the same batch size; other activations become relu."""

    name = "sklearn"

    def __init__(self, case: Case) -> None:
        from sklearn.neural_network import MLPClassifier

        names = {"relu": "relu", "tanh": "tanh", "sigmoid": "logistic", "identity": "identity"}
        inputs, target = case.data()
        self._inputs, self._target = inputs.numpy(), target.numpy()
        self._steps_an_epoch = -(-case.rows // case.batch)
        self._networks = [
            MLPClassifier(
                config.widths,
                activation=names.get(config.activation, "relu"),
                solver="adam" if case.optimizer == "adamw" else "sgd",
                batch_size=min(case.batch, case.rows),
                alpha=0.0,
                max_iter=2,
                n_iter_no_change=10,
            )
            for config in spread(case, case.configs(), 8)
        ]
        self.sample()

    def sample(self) -> float:
        """Return the seconds per member-step."""
        from sklearn.exceptions import ConvergenceWarning

        started = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            for network in self._networks:
                network.fit(self._inputs, self._target)
        steps = 2 * self._steps_an_epoch * len(self._networks)
        return (time.perf_counter() - started) / steps

    def close(self) -> None:
        """Do nothing: no process was started."""


class JaxVmap:
    """``jit(vmap(grad))`` with a hand-written Adam, over stacks of equal networks, on all threads of XLA."""

    name = "jax_vmap"

    def __init__(self, case: Case) -> None:
        try:
            import jax
        except ImportError:
            raise SystemExit("--with jax needs the package jax: pip install jax") from None
        import jax.numpy as jnp

        kinds: dict[Any, list[MLPConfig]] = {}
        for config in case.configs():
            kinds.setdefault((config.widths, config.activation), []).append(config)
        keys = sorted(kinds, key=lambda key: (case.product_flops([kinds[key][0]]), key[1]))
        # each shape compiles a stack, so a mixed population is sampled
        chosen = keys if len(keys) <= 5 else [keys[int((p + 0.5) * len(keys) / 5)] for p in range(5)]
        inputs, target = case.data()
        size = min(case.batch, case.rows)
        self._rows = jnp.asarray(inputs.numpy())[:size]
        self._target = jnp.asarray(target.numpy())[:size]
        self._jax = jax
        self._stacks = [self._stack(case, key, len(kinds[key])) for key in chosen]
        self._rounds = 1
        self.sample()
        self._rounds = max(1, int(1.0 / (self.sample() * sum(n for _, _, n in self._stacks))))

    def _stack(self, case: Case, key: Any, members: int) -> Any:
        jax = self._jax
        jnp = jax.numpy
        widths, activation = key
        activate = {
            "identity": lambda z: z,
            "sigmoid": jax.nn.sigmoid,
            "mish": jax.nn.mish,
            "hardshrink": lambda z: jnp.where(jnp.abs(z) > 0.5, z, 0.0),
        }.get(activation) or getattr(jax.nn, activation)
        sizes = [case.inputs, *widths, case.outputs]
        rng = np.random.default_rng(0)
        weights = []
        for fan_in, fan_out in itertools.pairwise(sizes):
            bound = fan_in**-0.5
            weights.append(
                (
                    jnp.asarray(rng.uniform(-bound, bound, (members, fan_in, fan_out)), dtype=jnp.float32),
                    jnp.asarray(rng.uniform(-bound, bound, (members, fan_out)), dtype=jnp.float32),
                )
            )

        def loss(layers: Any, rows: Any, target: Any) -> Any:
            for weight, bias in layers[:-1]:
                rows = activate(rows @ weight + bias)
            weight, bias = layers[-1]
            outputs = rows @ weight + bias
            if case.outputs == 1:
                logits = outputs[:, 0]
                return jnp.mean(jnp.logaddexp(0.0, logits) - target * logits)
            chosen = jnp.take_along_axis(jax.nn.log_softmax(outputs), target[:, None], axis=1)
            return -jnp.mean(chosen)

        gradient = jax.vmap(jax.grad(loss), in_axes=(0, None, None))

        def step(state: Any, rows: Any, target: Any) -> Any:
            layers, first, second, count = state
            grads = gradient(layers, rows, target)
            tree = jax.tree_util.tree_map
            first = tree(lambda m, g: 0.9 * m + 0.1 * g, first, grads)
            second = tree(lambda v, g: 0.999 * v + 0.001 * g * g, second, grads)
            count = count + 1
            rate = 1e-3 * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
            layers = tree(lambda p, m, v: p - rate * m / (jnp.sqrt(v) + 1e-8), layers, first, second)
            return layers, first, second, count

        zeros = jax.tree_util.tree_map(jnp.zeros_like, weights)
        return [(weights, zeros, zeros, 0.0), jax.jit(step), members]

    def sample(self) -> float:
        """Return the seconds per member-step."""
        started = time.perf_counter()
        steps = 0
        for stack in self._stacks:
            state, step, members = stack
            for _ in range(self._rounds):
                state = step(state, self._rows, self._target)
                steps += members
            self._jax.block_until_ready(state)
            stack[0] = state
        return (time.perf_counter() - started) / steps

    def close(self) -> None:
        """Do nothing: no process was started."""


def make(name: str, case: Case) -> ScikitLearn | JaxVmap:
    """Return the rival of a name."""
    return {"sklearn": ScikitLearn, "jax": JaxVmap}[name](case)
