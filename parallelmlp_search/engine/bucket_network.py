"""Network of one bucket: forward pass and hand-written backward pass, in buffers that are made once.

A hidden layer is ``z = W a + b``, layer normalization, activation, dropout and residual connection, as far as
the bucket has them; the head is linear. A periodic embedding may come first, see
:mod:`parallelmlp_search.engine.embedding`. Scales of inputs multiply the columns of the first layer's weights
and not the rows. The reference is :func:`parallelmlp_search.packing.pack.build_module`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from parallelmlp_search.engine.embedding import PeriodicEmbedding, embedding_shapes
from parallelmlp_search.engine.hidden_layer import HiddenLayer, hidden_shapes
from parallelmlp_search.engine.parameter_views import LayerTensors
from parallelmlp_search.engine.products import FirstLayerGradient, head_input_gradient, padded_columns
from parallelmlp_search.engine.storage import PassOptions, Shapes, carve
from parallelmlp_search.kernels.batched import (
    affine,
    affine_input_gradient,
    affine_weight_gradient,
    shared_affine,
)
from parallelmlp_search.kernels.losses import Loss
from parallelmlp_search.packing.layout import Bucket


class Targets(NamedTuple):
    """Targets and weights ``(N,)`` of the rows of a batch, and label smoothing ``(P,)`` of the members."""

    target: Tensor
    weight: Tensor | None = None
    smoothing: Tensor | None = None


def bucket_shapes(bucket: Bucket, options: PassOptions) -> Shapes:
    """Return the shapes of all buffers of a bucket of plain networks."""
    shape = bucket.shape
    n_members, width = bucket.n_members, (*shape.widths, shape.n_outputs)[0]
    outputs = (n_members, shape.n_outputs, options.n_rows)
    shapes = embedding_shapes(bucket, options) | hidden_shapes(bucket, options) | {"outputs": outputs}
    if shape.scaled:
        shapes["scaled"] = (n_members, width, shape.fan_in)
    if options.training:
        shapes["output_gradient"] = outputs
        if shape.scaled:
            shapes["scaled_gradient"] = shapes["scaled"]
        if not shape.n_periodic and (n_columns := padded_columns(shape.n_inputs)):
            shapes["first_gradient"] = (n_members * width, n_columns)
    return shapes


class BucketNetwork:
    """Passes of one bucket of plain networks.

    Parameters
    ----------
    bucket, options
        Bucket, and properties of the passes.
    storage
        Flat tensor for the buffers of :func:`bucket_shapes`, shared with the other buckets.
    dropout
        Rates ``(P, 1, 1)``; read only if the bucket has dropout and trains.

    Attributes
    ----------
    output_gradient
        Gradient ``(P, C, N)`` by the outputs, which :meth:`losses` writes and :meth:`backward` reads.
    """

    def __init__(
        self, bucket: Bucket, options: PassOptions, storage: Tensor, dropout: Tensor | None = None
    ) -> None:
        shape = bucket.shape
        buffers = carve(storage, bucket_shapes(bucket, options))
        self.depth = shape.depth
        self.outputs = buffers["outputs"]
        self._dropout = options.training and shape.dropout
        if self._dropout:
            assert dropout is not None
            self._set_rates(dropout)
        self._embedding = PeriodicEmbedding(bucket, options, buffers) if shape.n_periodic else None
        self._scaled = buffers.get("scaled")
        self._scaled_gradient = buffers.get("scaled_gradient")
        self.layers = [HiddenLayer(bucket, number, options, buffers) for number in range(shape.depth)]
        if options.training:
            self.output_gradient = buffers["output_gradient"]
            result = buffers.get("first_gradient")
            self._first_gradient = FirstLayerGradient(shape.n_inputs, options.n_rows, result)

    def _set_rates(self, rates: Tensor) -> None:
        self._rates = rates.to(self.outputs.device, torch.float32)  # as precise as the fields
        self._scales = (1.0 / (1.0 - rates)).to(self.outputs)

    def draw_dropout(self, fields: Sequence[Tensor], rates: Tensor | None = None) -> None:
        """Compare the uniform fields ``(H_max, N)`` of the layers with the dropout rate of each member.

        ``rates`` (P,) replace those of the constructor for this step. From fields ``(K, H_max, N)``,
        consecutive members take one field each, in turn.
        """
        if not self._dropout:
            return
        if rates is not None:
            self._set_rates(rates.view(-1, 1, 1))
        for layer, field in zip(self.layers, fields, strict=False):
            assert layer.keep is not None
            width = layer.keep.shape[1]
            keep, thresholds = layer.keep, self._rates
            if field.ndim == 3:
                keep, thresholds = (t.view(-1, len(field), *t.shape[1:]) for t in (keep, thresholds))
            # comparing straight into numbers takes 0.13 ns an element, by way of booleans 1.1 ns
            torch.ge(field[..., :width, :].unsqueeze(0), thresholds, out=keep)
            layer.keep.mul_(self._scales)

    def predict(self, parameters: Sequence[LayerTensors], windows: Sequence[Tensor]) -> Iterable[Tensor]:
        """Yield the outputs ``(P, C, N)`` of members for each of some rows ``(N, D)``."""
        return (self.forward(parameters, rows) for rows in windows)

    def losses(self, loss: Loss, targets: Targets) -> Tensor:
        """Return the losses ``(P,)`` of the last outputs; write :attr:`output_gradient`."""
        return loss(self.outputs, targets.target, self.output_gradient, targets.weight, targets.smoothing)

    def _first_tensors(self, tensors: LayerTensors) -> LayerTensors:
        """Parameters of the first layer with scales multiplied into the weights."""
        if self._scaled is None:
            return tensors
        assert tensors.scale is not None
        return tensors._replace(weight=torch.mul(tensors.weight, tensors.scale, out=self._scaled))

    def embedded(self) -> Tensor:
        """Return a copy of the embedded rows of the last :meth:`forward` of a bucket with an embedding."""
        assert self._embedding is not None
        return self._embedding.inputs.clone()

    def forward(
        self, parameters: Sequence[LayerTensors], rows: Tensor, *, embedded: Tensor | None = None
    ) -> Tensor:
        """Return the outputs ``(P, C, N)`` for rows ``(N, D)``; the next call overwrites them.

        Parameters
        ----------
        parameters, rows
            Parameters of each layer, and rows.
        embedded
            What :meth:`embedded` returned for these rows, or None to embed them.

        Returns
        -------
        Tensor
        """
        self._forward_inputs = parameters, rows
        previous = embedded
        first = self._first_tensors(parameters[0])
        if self._embedding is not None and embedded is None:
            previous = self._embedding.forward(parameters[0], rows)
        for number, layer in enumerate(self.layers):
            tensors = parameters[number] if number else first
            if previous is None:
                shared_affine(tensors.weight, tensors.bias, rows, layer.z)
            else:
                affine(tensors.weight, tensors.bias, previous, layer.z)
            inputs = previous
            if layer.residual and previous is None:
                inputs = rows.t().unsqueeze(0)
            layer.forward(tensors, inputs)
            previous = layer.output
        head = parameters[self.depth] if self.depth else first
        if previous is None:
            return shared_affine(head.weight, head.bias, rows, self.outputs)
        return affine(head.weight, head.bias, previous, self.outputs)

    def backward(self, gradients: Sequence[LayerTensors]) -> None:
        """Write the gradients of all parameters of the last :meth:`forward`."""
        parameters, rows = self._forward_inputs
        head, head_gradient = parameters[self.depth], gradients[self.depth]
        if self.depth == 0:
            self._first_backward(self.output_gradient, rows, head, head_gradient, None)
            return
        if head_gradient.bias is not None:
            torch.sum(self.output_gradient, dim=2, keepdim=True, out=head_gradient.bias)
        affine_weight_gradient(self.output_gradient, self.layers[-1].output, head_gradient.weight)
        place = 0
        grad = self.layers[-1].scratch[place]
        head_input_gradient(head.weight, self.output_gradient, grad)
        for number in range(self.depth - 1, -1, -1):
            layer, tensors, into = self.layers[number], parameters[number], gradients[number]
            inner = layer.backward(place, into)
            if number == 0:
                self._first_backward(inner, rows, tensors, into, grad if layer.residual else None)
                return
            if into.bias is not None:
                torch.sum(inner, dim=2, keepdim=True, out=into.bias)
            below = self.layers[number - 1]
            affine_weight_gradient(inner, below.output, into.weight)
            if layer.residual:
                affine_input_gradient(tensors.weight, inner, grad, accumulate=True)
            else:
                place = 1 - place
                grad = below.scratch[place]
                affine_input_gradient(tensors.weight, inner, grad)

    def _first_backward(
        self, grad: Tensor, rows: Tensor, tensors: LayerTensors, into: LayerTensors, bypass: Tensor | None
    ) -> None:
        """Gradients of the first layer and everything before it, from the gradient of its products.

        ``bypass`` is the gradient that a residual first layer passes to its inputs.
        """
        inner, outer = tensors, into
        if self._scaled is not None:
            assert self._scaled_gradient is not None
            inner = tensors._replace(weight=self._scaled)
            outer = into._replace(weight=self._scaled_gradient)
        if self._embedding is None:
            self._first_gradient(grad, rows, outer.weight, outer.bias)
        else:
            self._embedding.backward(inner, outer, grad, bypass)
        if self._scaled is not None:
            assert tensors.scale is not None
            assert into.scale is not None
            torch.mul(outer.weight, tensors.weight, out=into.weight)
            torch.sum(into.weight, dim=1, keepdim=True, out=into.scale)
            torch.mul(outer.weight, tensors.scale, out=into.weight)
