"""Networks as ONNX nodes; the twin of `inference.forward`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parallelmlp_search.export.onnx_graph import Graph
from parallelmlp_search.export.parts import ModelParts
from parallelmlp_search.inference.forward import LAYER_NORM_EPSILON

Arrays = Mapping[str, NDArray[Any]]


def group_outputs(
    graph: Graph, parts: ModelParts, number: int, rows: str
) -> tuple[str, NDArray[np.float64], NDArray[np.bool_]]:
    """Add the networks of a group of folds.

    Parameters
    ----------
    graph, parts, number
        Graph, parts of the model, and number of the group.
    rows
        Encoded rows ``(E, n, width)``.

    Returns
    -------
    (outputs, weights, is_decoded)
        Outputs ``(S, n, C)`` of all networks of the group, and their weights ``(S,)``. Those of a regression
        and of labels are means over submembers; where ``(S,)`` is True, they are values of a transformed
        target. They have double precision if a network of the model has such a target, else single precision.
    """
    group = parts.description["groups"][number]
    takes_mean = parts.description["task"] in ("regression", "multilabel")
    networks = _Networks(graph, rows, group)
    has_curves = any(".curve." in name for name in parts.arrays)
    outputs, weights, is_decoded = [], [], []
    for same in _alike(group["members"], parts, f"group{number}"):
        layers = [_stacked([one[1][place] for one in same]) for place in range(len(same[0][1]))]
        member, _, waves, curve = same[0]
        values = networks.outputs(member, layers, waves)
        n_folds, n_submembers, n_outputs = _shape(layers)
        if n_submembers > 1 and takes_mean:
            values = graph.add("ReduceMean", values, np.array([-3]), keepdims=0)
            n_submembers = 1
        if len(same) > 1 or n_submembers > 1:
            count = len(same) * n_folds * n_submembers
            values = graph.add("Reshape", values, np.array([count, -1, n_outputs]))
        values = graph.cast(values, "DOUBLE") if has_curves else values
        if curve:
            names = ("start", "step", "values")
            values = _decoded(
                graph, values, *(np.concatenate([one[3][name] for one in same]) for name in names)
            )
        outputs.append(values)
        each = group["share"] / (group["n_folds"] * n_submembers)
        weights.append(np.repeat([one[0]["weight"] * each for one in same], n_folds * n_submembers))
        is_decoded.append(np.full(len(weights[-1]), bool(curve)))
    joined = outputs[0] if len(outputs) == 1 else graph.add("Concat", *outputs, axis=0)
    return joined, np.concatenate(weights), np.concatenate(is_decoded)


def _decoded(graph: Graph, values: str, start: NDArray[Any], step: NDArray[Any], table: NDArray[Any]) -> str:
    """Values of a target at outputs ``(S, n, C)``, linear between the knots of its curves ``(S, C, K)``."""
    n_networks, n_outputs, n_knots = table.shape
    add = graph.add
    place = add("Div", add("Sub", values, start[:, None]), step[:, None])
    place = add("Min", add("Max", place, 0.0), float(n_knots - 1))
    whole = add("Min", add("Floor", place), float(n_knots - 2))
    offset = n_knots * np.arange(n_networks * n_outputs).reshape(n_networks, 1, n_outputs)
    knot = add("Add", graph.cast(whole, "INT64"), offset)
    low = add("Gather", table.reshape(-1), knot)
    rise = add("Gather", np.diff(table, append=table[..., -1:]).reshape(-1), knot)
    return add("Add", low, add("Mul", add("Sub", place, whole), rise))


def _alike(
    members: Sequence[dict[str, Any]], parts: ModelParts, prefix: str
) -> list[list[tuple[dict[str, Any], list[dict[str, Any]], Arrays, Arrays]]]:
    """Members with layers, waves and curves; those of equal shapes are in one list and computed at once."""
    found: dict[Any, list[tuple[dict[str, Any], list[dict[str, Any]], Arrays, Arrays]]] = {}
    for number, member in enumerate(members):
        name = f"{prefix}.member{number}"
        layers = [
            _simplified(layer | parts.of(f"{name}.layer{place}"))
            for place, layer in enumerate(member["layers"])
        ]
        waves, curve = parts.of(f"{name}.waves"), parts.of(f"{name}.curve")
        key: Any = number
        if not waves:
            key = (
                str(member["columns"]),
                bool(curve),
                tuple(
                    tuple((k, v.shape if isinstance(v, np.ndarray) else v) for k, v in layer.items())
                    for layer in layers
                ),
            )
        found.setdefault(key, []).append((member, layers, waves, curve))
    return list(found.values())


def _simplified(layer: dict[str, Any]) -> dict[str, Any]:
    """Layer ``(F, K, inputs, outputs)``, without the axis of submembers if there are none.

    The mean that a normalization subtracts is part of the weights, where no factor of submembers is between.
    """
    arrays = {name: part for name, part in layer.items() if isinstance(part, np.ndarray)}
    if "gain" in arrays and "output_factor" not in arrays:
        for name in ("weight", "bias"):
            if name in arrays:
                part = arrays[name].astype(np.float64)
                arrays[name] = (part - part.mean(axis=3, keepdims=True)).astype(np.float32)
    return layer | arrays | {"is_centred": "output_factor" not in arrays}


def _stacked(layers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Join the layers of members along a new first axis; that of one member stays as it is."""
    if len(layers) == 1:
        return layers[0]
    return {
        name: np.stack([layer[name] for layer in layers]) if isinstance(part, np.ndarray) else part
        for name, part in layers[0].items()
    }


def _shape(layers: Sequence[dict[str, Any]]) -> tuple[int, int, int]:
    """Number of folds, submembers and outputs."""
    arrays = [part for layer in layers for part in layer.values() if isinstance(part, np.ndarray)]
    head = layers[-1]["weight"]
    return head.shape[-4], max(array.shape[-3] for array in arrays), head.shape[-1]


class _Networks:
    """Networks that see the same encoded rows."""

    def __init__(self, graph: Graph, rows: str, group: dict[str, Any]) -> None:
        self._graph, self._rows = graph, rows
        self._width, self._n_encoders = group["width"], group["n_encoders"]
        self._inputs: dict[Any, str] = {}

    def outputs(self, member: dict[str, Any], layers: Sequence[dict[str, Any]], waves: Arrays) -> str:
        """Outputs ``([P,] F, [K,] n, C)`` of networks."""
        n_submembers = _shape(layers)[1]
        values = self._columns(member["columns"])
        if waves:
            values = self._with_waves(values, waves)
        if n_submembers > 1:
            key = ("submembers", values)
            if key not in self._inputs:
                self._inputs[key] = self._graph.add("Unsqueeze", values, np.array([1]))
            values = self._inputs[key]
        n_apart = 1  # submembers that differ so far
        for layer in layers:
            if n_submembers == 1:
                layer = {
                    name: part.squeeze(-3) if isinstance(part, np.ndarray) else part
                    for name, part in layer.items()
                }
            values = self._layer(layer, values, n_apart)
            if n_submembers > 1:
                n_apart = max([n_apart, _shape([layer])[1]])
        return values

    def _columns(self, columns: Sequence[Sequence[int]]) -> str:
        """Rows ``(E, n, D)`` of the columns that networks see."""
        key = str(columns)
        if key not in self._inputs:
            places = np.concatenate([np.arange(first, end) for first, end in columns])
            is_all = len(places) == self._width
            found = self._rows if is_all else self._graph.add("Gather", self._rows, places, axis=2)
            self._inputs[key] = found
        return self._inputs[key]

    def _with_waves(self, values: str, waves: Arrays) -> str:
        """Rows ``(F, n, D)`` with the mixtures of their waves."""
        add = self._graph.add
        frequency, mixing = waves["frequency"], waves["mixing"]
        n_folds, n_numbers = frequency.shape[:2]
        numbers = add("Gather", values, np.arange(n_numbers), axis=2)
        numbers = add("Unsqueeze", add("Transpose", numbers, perm=[0, 2, 1]), np.array([3]))
        angles = add("Add", add("Mul", numbers, frequency), waves["phase"])
        mixed = add("Add", add("MatMul", add("Cos", angles), mixing), waves["offset"])
        mixed = add("Transpose", mixed, perm=[0, 2, 1, 3])
        mixed = add("Reshape", mixed, np.array([n_folds, -1, n_numbers * mixing.shape[3]]))
        if self._n_encoders < n_folds:
            values = add("Expand", values, np.array([n_folds, 1, 1]))
        return add("Concat", values, mixed, axis=2)

    def _layer(self, layer: dict[str, Any], inputs: str, n_apart: int) -> str:
        """Outputs of a layer for inputs that differ between some submembers."""
        add = self._graph.add
        values, n_factors = inputs, n_apart
        if "input_factor" in layer:
            values = add("Mul", inputs, layer["input_factor"])
            n_factors = layer["input_factor"].shape[-3] if layer["input_factor"].ndim > 3 else n_apart
        values = self._product(values, layer["weight"], n_factors)
        if "output_factor" in layer:
            values = add("Mul", values, layer["output_factor"])
        if "bias" in layer:
            values = add("Add", values, layer["bias"])
        if "gain" in layer:
            if not layer["is_centred"]:
                mean = add("ReduceMean", values, np.array([-1]), keepdims=1)
                values = add("Sub", values, mean)
            ones = np.ones(layer["gain"].shape[-1], dtype=np.float32)
            values = add("LayerNormalization", values, ones, axis=-1, epsilon=LAYER_NORM_EPSILON)
            values = add("Add", add("Mul", values, layer["gain"]), layer["shift"])
        values = ACTIVATION_NODES[layer["activation"]](self._graph, values)
        if layer["residual"]:
            added = self._product(inputs, layer["projection"], n_apart) if "projection" in layer else inputs
            values = add("Add", values, added)
        return values

    def _product(self, values: str, weight: NDArray[Any], n_apart: int) -> str:
        """Products of values ``([P,] F, [K,] n, I)`` and weights."""
        if n_apart == 1 or weight.shape[-3] > 1:
            return self._graph.add("MatMul", values, weight)
        # Submembers with common weights are further rows of one product: a row of adult takes 0.26 ms instead
        # of 0.31 with two members of 8 submembers, on one core.
        *leading, _, n_inputs, n_outputs = weight.shape
        joined = self._graph.add("Reshape", values, np.array([*leading, -1, n_inputs]))
        product = self._graph.add("MatMul", joined, weight.squeeze(-3))
        return self._graph.add("Reshape", product, np.array([*leading, n_apart, -1, n_outputs]))


def _node(kind: str, **attributes: Any) -> Callable[[Graph, str], str]:
    return lambda graph, value: graph.add(kind, value, **attributes)


ACTIVATION_NODES: dict[str, Callable[[Graph, str], str]] = {
    "identity": lambda graph, value: value,
    "sigmoid": _node("Sigmoid"),
    "tanh": _node("Tanh"),
    "relu": _node("Relu"),
    "leaky_relu": _node("LeakyRelu", alpha=0.01),
    "elu": _node("Elu"),
    "gelu": _node("Gelu"),
    "selu": _node("Selu"),
    "hardshrink": _node("Shrink", lambd=0.5),
    "mish": _node("Mish"),
    "silu": lambda graph, value: graph.add("Mul", value, graph.add("Sigmoid", value)),
    "softplus": _node("Softplus"),
    "sine": _node("Sin"),
}
"""Activations by name, as nodes."""
