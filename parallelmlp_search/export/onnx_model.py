"""A trained model as one ONNX graph, from columns to probabilities and classes, or to values."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parallelmlp_search.exceptions import DataError
from parallelmlp_search.export.onnx_encoding import Columns, encoded_rows
from parallelmlp_search.export.onnx_graph import Graph
from parallelmlp_search.export.onnx_networks import group_outputs
from parallelmlp_search.export.parts import ModelParts
from parallelmlp_search.inference.outputs import MIN_PROBABILITY
from parallelmlp_search.packing import MAX_LOG

METADATA = ("task", "target", "outputs", "columns", "classes", "metric", "honest_score", "version")
"""Entries of the description that the file holds as texts; lists and numbers as JSON."""

MAX_BYTES = 2_000_000_000
"""Limit of protobuf."""


def onnx_model(parts: ModelParts) -> Any:
    """Return the parts of a model as an ``onnx.ModelProto``.

    Parameters
    ----------
    parts
        Parts of the model.

    Returns
    -------
    onnx.ModelProto

    Raises
    ------
    DataError
        If a class or the size cannot be represented.
    """
    description = parts.description
    if sum(array.nbytes for array in parts.arrays.values()) > MAX_BYTES:
        raise DataError("the model is larger than 2 GB, which an ONNX file cannot hold: use another format")
    classes = None if description["classes"] is None else _class_array(description["classes"])
    graph = Graph([*_column_names(description), "X", "probabilities", "label", "prediction"])
    columns = Columns(graph, parts)
    outputs, weights, is_decoded = [], [], []
    for number in range(len(description["groups"])):
        values, own, decoded = group_outputs(
            graph, parts, number, encoded_rows(graph, columns, parts, number)
        )
        outputs.append(values)
        weights.append(own)
        is_decoded.append(decoded)
    joined = outputs[0] if len(outputs) == 1 else graph.add("Concat", *outputs, axis=0)
    values = graph.cast(joined, "DOUBLE")
    weight = np.concatenate(weights)[:, None, None]
    if description["task"] == "multilabel":
        _add_labels(graph, description, values, weight)
    elif classes is None:
        _add_values(graph, parts, values, weight, np.concatenate(is_decoded))
    else:
        _add_classes(graph, description, values, weight, classes)
    metadata = {name: _text(description[name]) for name in METADATA if description.get(name) is not None}
    target = description["target"] or "a target"
    return graph.model(metadata, description["version"], f"Ensemble of networks that predicts {target}.")


def _add_values(
    graph: Graph, parts: ModelParts, values: str, weight: NDArray[np.float64], is_decoded: NDArray[np.bool_]
) -> None:
    """Add the output ``prediction`` of a regression."""
    description = parts.description

    def of_networks(name: str, decoded: float) -> NDArray[np.float64]:
        found = []
        for number, group in enumerate(description["groups"]):
            found += [parts.arrays[f"group{number}.{name}"]] * len(group["members"])
        arrays = np.concatenate(found)
        return np.where(is_decoded[:, None], decoded, arrays)[:, None, :]

    if description["link"] == "log":
        values = graph.add("Exp", graph.add("Min", graph.add("Max", values, -MAX_LOG), MAX_LOG))
    values = graph.add(
        "Add", graph.add("Mul", values, of_networks("scale", 1.0)), of_networks("location", 0.0)
    )
    lower, upper = of_networks("lower", -np.inf), of_networks("upper", np.inf)
    values = graph.add("Min", graph.add("Max", values, lower), upper)
    values = graph.add("ReduceSum", graph.add("Mul", values, weight), np.array([0]), keepdims=0)
    if description["target_unit"] is not None:
        unit, center = (np.array(description[name]) for name in ("target_unit", "target_center"))
        values = graph.add("Add", graph.add("Mul", values, unit), center)
    name = _free_name("prediction", description)
    if description["flat_target"]:
        graph.add_to(name, "Reshape", values, np.array([-1]))
        graph.add_output(name, "DOUBLE", ["n"])
    else:
        graph.add_to(name, "Identity", values)
        n_outputs = parts.arrays["group0.location"].shape[1]
        graph.add_output(name, "DOUBLE", ["n", n_outputs])


def _add_classes(
    graph: Graph,
    description: dict[str, Any],
    values: str,
    weight: NDArray[np.float64],
    classes: tuple[str, NDArray[Any]],
) -> None:
    """Add the outputs ``probabilities`` and ``label`` of a classification."""
    if description["task"] == "binary":
        both = graph.add("Concat", graph.add("Neg", values), values, axis=2)
        values = graph.add("Sigmoid", both)
    else:
        values = graph.add("Softmax", values, axis=2)
    values = graph.add("ReduceSum", graph.add("Mul", values, weight), np.array([0]), keepdims=0)
    values = graph.add("Div", values, graph.add("ReduceSum", values, np.array([1]), keepdims=1))
    if description["temperature"] != 1.0:
        logits = graph.add("Log", graph.add("Max", values, MIN_PROBABILITY))
        values = graph.add("Softmax", graph.add("Div", logits, description["temperature"]), axis=1)
    kind, labels = classes
    weighted = values
    if description["decision_weights"] is not None:
        decision = np.array(description["decision_weights"])
        weighted = graph.add("Mul" if decision.ndim == 1 else "MatMul", values, decision)
    chosen = graph.add("ArgMax", weighted, axis=1, keepdims=0)
    name = _free_name("probabilities", description)
    graph.add_to(name, "Cast", values, to=1)  # single precision
    graph.add_output(name, "FLOAT", ["n", len(labels)])
    name = _free_name("label", description)
    graph.add_to(name, "Gather", labels, chosen)
    graph.add_output(name, kind, ["n"])


def _add_labels(graph: Graph, description: dict[str, Any], values: str, weight: NDArray[np.float64]) -> None:
    """Add the outputs ``probabilities`` and ``labels``, 0 and 1, of a multilabel classification."""
    values = graph.add("Mul", graph.add("Sigmoid", values), weight)
    values = graph.add("ReduceSum", values, np.array([0]), keepdims=0)
    if description["temperature"] != 1.0:
        absent = graph.add("Max", graph.add("Sub", np.array(1.0), values), MIN_PROBABILITY)
        present = graph.add("Max", values, MIN_PROBABILITY)
        odds = graph.add("Sub", graph.add("Log", present), graph.add("Log", absent))
        values = graph.add("Sigmoid", graph.add("Div", odds, description["temperature"]))
    n_labels = len(description["classes"])
    weights = np.array(description["decision_weights"] or [1.0] * n_labels)
    chosen = graph.add("Greater", graph.add("Mul", values, weights), np.array(0.5))
    name = _free_name("probabilities", description)
    graph.add_to(name, "Cast", values, to=1)  # single precision
    graph.add_output(name, "FLOAT", ["n", n_labels])
    name = _free_name("labels", description)
    graph.add_to(name, "Cast", chosen, to=7)  # 64-bit integers
    graph.add_output(name, "INT64", ["n", n_labels])


def _class_array(classes: list[Any]) -> tuple[str, NDArray[Any]]:
    """Type of ONNX of the classes, and the classes.

    Raises
    ------
    DataError
        If they are of several types, or integers of more than 64 bits.
    """
    kinds = {type(one) for one in classes}
    if kinds == {str}:
        return "STRING", np.array(classes, dtype=object)
    if kinds == {bool}:
        return "BOOL", np.array(classes)
    if kinds == {float}:
        return "DOUBLE", np.array(classes)
    if kinds != {int} or max(map(abs, classes)) >= 2**63:
        raise DataError(
            f"classes must be all texts, all booleans, all floats or all 64-bit integers in ONNX, but are "
            f"{classes[0]!r} and others: use another format"
        )
    return "INT64", np.array(classes, dtype=np.int64)


def _column_names(description: dict[str, Any]) -> list[str]:
    return [column["name"] for column in description["columns"]]


def _free_name(name: str, description: dict[str, Any]) -> str:
    """Name of an output that no column has."""
    while name in _column_names(description):
        name += "_"
    return name


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
