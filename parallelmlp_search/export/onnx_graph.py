"""Nodes and constants of an ONNX graph that is being built."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parallelmlp_search._optional import require

OPSET, ML_OPSET, IR_VERSION = 20, 3, 9
"""Versions of 2023, which onnxruntime 1.17 and newer run."""


class Graph:
    """ONNX graph under construction.

    Parameters
    ----------
    taken
        Names that no value inside the graph may have.
    """

    def __init__(self, taken: Collection[str]) -> None:
        self._taken = frozenset(taken)
        self._onnx = require("onnx", extra="export", purpose="to export a model to ONNX")
        self._helper = require("onnx.helper", extra="export", purpose="to export a model to ONNX")
        self._nodes: list[Any] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._tensors: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._n_values = 0

    def add(self, kind: str, *inputs: str | NDArray[Any] | float, **attributes: Any) -> str:
        """Add a node and return the name of its output.

        Parameters
        ----------
        kind
            Operator.
        *inputs
            Names of values, or constants.
        **attributes
            Attributes of the operator.

        Returns
        -------
        str
        """
        return self.add_to(self._new_name(), kind, *inputs, **attributes)

    def add_to(self, output: str, kind: str, *inputs: str | NDArray[Any] | float, **attributes: Any) -> str:
        """Add a node whose output has a name, and return the name.

        Parameters
        ----------
        output, kind
            Name of the output, and operator.
        *inputs, **attributes
            As of :meth:`add`.

        Returns
        -------
        str
        """
        names = [one if isinstance(one, str) else self.constant(one) for one in inputs]
        if kind == "LabelEncoder":
            attributes["domain"] = "ai.onnx.ml"
        self._nodes.append(self._helper.make_node(kind, names, [output], **attributes))
        return output

    def constant(self, value: NDArray[Any] | float) -> str:
        """Return the name of a constant; equal ones are stored once. A float is of double precision."""
        array = np.asarray(value)
        if array.dtype == object or array.dtype.kind == "U":
            texts = [str(one) for one in array.ravel()]
            key = ("text", array.shape, "\0".join(texts).encode())
        else:
            array = np.ascontiguousarray(array).reshape(array.shape)  # the former makes an axis of a scalar
            key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = self._constants[key] = self._new_name()
            if key[0] == "text":
                kind = self._onnx.TensorProto.STRING
                tensor = self._helper.make_tensor(name, kind, array.shape, [text.encode() for text in texts])
            else:
                tensor = self._onnx.numpy_helper.from_array(array, name)
            self._tensors.append(tensor)
        return self._constants[key]

    def cast(self, value: str, kind: str) -> str:
        """Convert a value to ``FLOAT``, ``DOUBLE``, ``INT64`` or another type of ONNX."""
        return self.add("Cast", value, to=getattr(self._onnx.TensorProto, kind))

    def add_input(self, name: str, kind: str, width: int = 1) -> str:
        """Declare an input, and return its name.

        Parameters
        ----------
        name, kind
            Name, and type of ONNX.
        width
            Its shape is (n, width).

        Returns
        -------
        str
        """
        self._inputs.append(self._information(name, kind, ["n", width]))
        return name

    def add_output(self, name: str, kind: str, shape: Sequence[str | int]) -> None:
        """Declare an output.

        Parameters
        ----------
        name, kind, shape
            Name, type of ONNX, and shape.
        """
        self._outputs.append(self._information(name, kind, shape))

    def model(self, metadata: dict[str, str], version: str, description: str) -> Any:
        """Return the checked model with its metadata.

        Parameters
        ----------
        metadata
            Texts by name.
        version
            Version of this package.
        description
            One sentence.

        Returns
        -------
        onnx.ModelProto
        """
        helper = self._helper
        graph = helper.make_graph(self._nodes, "ensemble", self._inputs, self._outputs, self._tensors)
        versions = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
        model = helper.make_model(
            graph,
            opset_imports=versions,
            ir_version=IR_VERSION,
            producer_name="parallelmlp-search",
            producer_version=version,
            doc_string=description,
        )
        helper.set_model_props(model, metadata)
        self._onnx.checker.check_model(model)
        return model

    def _new_name(self) -> str:
        self._n_values += 1
        name = f"v{self._n_values}"
        return name if name not in self._taken else self._new_name()

    def _information(self, name: str, kind: str, shape: Sequence[str | int]) -> Any:
        return self._helper.make_tensor_value_info(name, getattr(self._onnx.TensorProto, kind), shape)
