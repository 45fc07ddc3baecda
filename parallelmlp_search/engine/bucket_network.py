"""One bucket of the packed network: forward and hand-written backward, in buffers that are made once.

A hidden layer is ``z = W a + b``, layer normalisation of ``z`` if the bucket has it, the activation by
segment, perhaps mixed with ``z`` by a coefficient of each neuron, dropout, and the layer's input added where
the layer is residual; the head is linear. Before the first layer there may be an embedding, see
:mod:`parallelmlp_search.engine.embedding`. Scales of the inputs never touch rows: they multiply the columns
of the first layer's weights. The plain twin is :func:`parallelmlp_search.packing.pack.build_module`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from parallelmlp_search.engine.buffers import (
    Arena,
    HiddenLayer,
    LayerTensors,
    SegmentViews,
    compiled_activations,
    first_layer_size,
    scaled_size,
)
from parallelmlp_search.engine.embedding import PeriodicEmbedding
from parallelmlp_search.engine.products import (
    FirstLayerGradient,
    head_input_gradient,
    plain_first_layer_gradient,
)
from parallelmlp_search.kernels.activations import ACTIVATION_KERNELS
from parallelmlp_search.kernels.batched import (
    affine,
    affine_input_gradient,
    affine_weight_gradient,
    shared_affine,
)
from parallelmlp_search.kernels.losses import Loss
from parallelmlp_search.kernels.numba.dispatch import uses_compiled
from parallelmlp_search.packing.layout import Bucket

__all__ = ["BucketNetwork"]

LAYER_NORM_EPSILON = 1e-5


class BucketNetwork:
    """Buffers and passes of one bucket for batches of exactly ``n_rows`` rows.

    Parameters
    ----------
    bucket
        The bucket.
    n_rows
        Rows ``N`` of every batch.
    arena
        Memory for the buffers, shared with the other buckets.
    training
        Whether to keep what the backward pass needs.
    dropout
        Rates ``(P, 1, 1)``; read only if the bucket has dropout and ``training`` is true.
    compiled
        Whether to use the compiled loops; None where they are installed.
    """

    def __init__(
        self,
        bucket: Bucket,
        n_rows: int,
        arena: Arena,
        *,
        dtype: torch.dtype,
        device: torch.device | str,
        training: bool,
        dropout: Tensor | None = None,
        compiled: bool | None = None,
    ) -> None:
        compiled = uses_compiled(dtype, device, wanted=compiled)
        arena.restart()
        shape = bucket.shape
        self.depth = shape.depth
        self.training = training
        self.n_members = bucket.n_members
        self._columns = shape.columns or ((0, shape.n_inputs),)
        self._dropout = training and shape.dropout
        self._normalize = shape.normalization == "layer"
        if self._dropout:
            assert dropout is not None
            self._keep_rates(dropout, device, dtype)

        def empty(width: int) -> Tensor:
            return arena.take(self.n_members, width, n_rows)

        self._embedding = PeriodicEmbedding.of(bucket, n_rows, arena, training=training)
        self._scaled = None
        if size := scaled_size(bucket):
            parts = [arena.take(size).view(self.n_members, -1, shape.fan_in) for _ in range(1 + training)]
            self._scaled = tuple(parts)
        widest = max(shape.widths, default=0)
        scratch = [arena.take(self.n_members * widest * n_rows) for _ in range(3 * training)]
        padded = bucket.padded_layers()
        self._true_widths: list[Tensor] = []
        self.layers: list[HiddenLayer] = []
        for layer, width in enumerate(shape.widths):
            true = torch.tensor([a.widths[layer] for a in bucket.architectures])
            self._true_widths.append(true.view(-1, 1, 1).to(device=device, dtype=dtype))
            mask = None
            if padded[layer]:
                mask = (torch.arange(width).view(1, -1, 1) < true.view(-1, 1, 1)).to(device, dtype)
            kernels = [ACTIVATION_KERNELS[segment.activation] for segment in bucket.segments]
            residual = shape.residual[layer] if shape.residual else False
            # the output may overwrite z unless the backward pass still needs z as it was
            combined = residual or self._dropout
            separate = training and (combined or not all(kernel.saves_output for kernel in kernels))
            z = empty(width)
            a = empty(width) if separate else z
            keep = empty(width) if self._dropout else None
            own = tuple(part[: z.numel()].view(z.shape) for part in scratch)
            segments = []
            # views are made once: making them costs 2 us each, as much as a call
            for kernel, segment in zip(kernels, bucket.segments, strict=True):
                rows = slice(segment.start, segment.stop)
                source = z[rows] if combined and kernel.saves_output else a[rows]
                segments.append(
                    SegmentViews(
                        kernel,
                        rows,
                        z=z[rows],
                        source=source,
                        output=a[rows],
                        saved=source if kernel.saves_output else z[rows],
                        mask=None if mask is None or kernel.zero_at_zero else mask[rows],
                        keep=None if keep is None else keep[rows],
                        gradients=tuple(part[rows] for part in own),
                    )
                )
            loops = compiled_activations(z, a, segments) if compiled else None
            covered = frozenset() if loops is None else loops.covers
            left = [view for view in segments if view.kernel.name not in covered]
            tail = combined or any(view.mask is not None for view in segments)
            self.layers.append(
                HiddenLayer(
                    z=z,
                    a=a,
                    residual=residual,
                    normalized=empty(width) if self._normalize and training else None,
                    keep=keep,
                    mask=mask,
                    scratch=own,
                    compiled=loops,
                    covered=covered,
                    forward_views=tuple(segments if tail else left),
                    backward_views=tuple(left),
                )
            )
        self._deviations: list[Tensor] = [torch.empty(0)] * self.depth
        self.outputs = empty(shape.n_outputs)
        if training:
            self.output_gradient = empty(shape.n_outputs)
            self._first_gradient = plain_first_layer_gradient
            if size := first_layer_size(bucket):
                width = (*shape.widths, shape.n_outputs)[0]
                storage = arena.take(size)
                self._first_gradient = FirstLayerGradient(
                    self.n_members, width, shape.n_inputs, n_rows, storage
                )

    def seen(self, rows: Tensor) -> Tensor:
        """The columns of rows ``(n, *)`` that the members see, ``(n, D)``; a view where they are one run."""
        runs = [rows[:, first:end] for first, end in self._columns]
        return runs[0] if len(runs) == 1 else torch.cat(runs, dim=1)

    def _keep_rates(self, rates: Tensor, device: torch.device | str, dtype: torch.dtype) -> None:
        self._rates = rates.to(device=device, dtype=torch.float32)  # as precise as the fields
        self._scales = (1.0 / (1.0 - rates)).to(device=device, dtype=dtype)

    def draw_dropout(self, fields: Sequence[Tensor], rates: Tensor | None = None) -> None:
        """Threshold shared uniform fields ``(H_max, N)``, one per layer, by each member's own rate.

        ``rates`` (P,) are those of this step, where they have a schedule. Of fields ``(K, H_max, N)`` members
        take one after the other in turn.
        """
        if not self._dropout:
            return
        if rates is not None:
            self._keep_rates(rates.view(-1, 1, 1), self._scales.device, self._scales.dtype)
        for layer, field in zip(self.layers, fields, strict=False):
            assert layer.keep is not None
            width = layer.keep.shape[1]
            keep, rates = layer.keep, self._rates
            if field.ndim == 3:
                keep, rates = (t.view(-1, len(field), *t.shape[1:]) for t in (keep, rates))
            # a comparison straight into numbers: 0.13 ns an element against 1.1 by way of booleans
            torch.ge(field[..., :width, :].unsqueeze(0), rates, out=keep)
            layer.keep.mul_(self._scales)

    def predict(self, parameters: Sequence[LayerTensors], rows: Tensor) -> Tensor:
        """What members say ``(P, C, N)`` of rows ``(N, D)``, which are their outputs."""
        return self.forward(parameters, rows)

    def losses(
        self, loss: Loss, outputs: Tensor, target: Tensor, weight: Tensor | None, smoothing: Tensor | None
    ) -> Tensor:
        """Losses ``(P,)`` of outputs of :meth:`forward`, whose gradients :meth:`backward` will read."""
        return loss(outputs, target, self.output_gradient, weight, smoothing)

    def _first_tensors(self, tensors: LayerTensors) -> LayerTensors:
        """The first layer's tensors, its weights times the scales of their inputs."""
        if self._scaled is None:
            return tensors
        assert tensors.scale is not None
        return tensors._replace(weight=torch.mul(tensors.weight, tensors.scale, out=self._scaled[0]))

    def forward(self, parameters: Sequence[LayerTensors], rows: Tensor) -> Tensor:
        """Outputs ``(P, C, N)`` of rows ``(N, D)``; the buffer is overwritten by the next call."""
        previous: Tensor | None = None
        first = self._first_tensors(parameters[0])
        if self._embedding is not None:
            previous = self._embedding.forward(parameters[0], rows)
        for number, layer in enumerate(self.layers):
            tensors = parameters[number] if number else first
            if previous is None:
                shared_affine(tensors.weight, tensors.bias, rows, layer.z)
            else:
                affine(tensors.weight, tensors.bias, previous, layer.z)
            if self._normalize:
                self._normalize_forward(number, layer, tensors)
            if layer.compiled is not None:
                layer.compiled.forward()
            for view in layer.forward_views:
                if view.kernel.name not in layer.covered:
                    view.kernel.forward(view.z, view.source)
                if view.mask is not None:
                    view.source.mul_(view.mask)
                current = view.source
                if view.keep is not None:
                    current = torch.mul(current, view.keep, out=view.output)
                if layer.residual:
                    carried = rows.t().unsqueeze(0) if previous is None else previous[view.rows]
                    torch.add(current, carried, out=view.output)
            previous = layer.a
        head = parameters[self.depth] if self.depth else first
        if previous is None:
            return shared_affine(head.weight, head.bias, rows, self.outputs)
        return affine(head.weight, head.bias, previous, self.outputs)

    def _normalize_forward(self, number: int, layer: HiddenLayer, tensors: LayerTensors) -> None:
        """Layer normalisation over the true neurons of each member and row (Ba et al. 2016), in place."""
        assert tensors.gain is not None
        assert tensors.shift is not None
        width = self._true_widths[number]
        z = layer.z
        z.sub_(z.sum(dim=1, keepdim=True).div_(width))
        if layer.mask is not None:
            z.mul_(layer.mask)
        inverse = (z * z).sum(dim=1, keepdim=True).div_(width).add_(LAYER_NORM_EPSILON).rsqrt_()
        normalized = z if layer.normalized is None else layer.normalized
        torch.mul(z, inverse, out=normalized)
        self._deviations[number] = inverse
        torch.addcmul(tensors.shift, normalized, tensors.gain, out=z)

    def _normalize_backward(
        self, number: int, layer: HiddenLayer, tensors: LayerTensors, gradients: LayerTensors, grad: Tensor
    ) -> None:
        assert tensors.gain is not None
        assert layer.normalized is not None
        assert gradients.gain is not None
        assert gradients.shift is not None
        width = self._true_widths[number]
        normalized = layer.normalized
        product = layer.scratch[2]
        torch.mul(grad, normalized, out=product)
        torch.sum(product, dim=2, keepdim=True, out=gradients.gain)
        torch.sum(grad, dim=2, keepdim=True, out=gradients.shift)
        grad.mul_(tensors.gain)
        torch.mul(grad, normalized, out=product)
        mean = grad.sum(dim=1, keepdim=True).div_(width)
        slope = product.sum(dim=1, keepdim=True).div_(width)
        grad.sub_(mean).addcmul_(normalized, slope, value=-1.0)
        grad.mul_(self._deviations[number])
        if layer.mask is not None:
            grad.mul_(layer.mask)

    def _first_backward(
        self, grad: Tensor, rows: Tensor, tensors: LayerTensors, into: LayerTensors, past: Tensor | None
    ) -> None:
        """From the gradient of the first layer's products, and of what goes ``past`` it, all before it."""
        inner, outer = tensors, into
        if self._scaled is not None:
            inner = tensors._replace(weight=self._scaled[0])
            outer = into._replace(weight=self._scaled[1])
        if self._embedding is None:
            self._first_gradient(grad, rows, outer.weight, outer.bias)
        else:
            self._embedding.backward(inner, outer, grad, past)
        if self._scaled is not None:
            assert tensors.scale is not None
            assert into.scale is not None
            torch.mul(outer.weight, tensors.weight, out=into.weight)
            torch.sum(into.weight, dim=1, keepdim=True, out=into.scale)
            torch.mul(outer.weight, tensors.scale, out=into.weight)

    def backward(
        self, parameters: Sequence[LayerTensors], gradients: Sequence[LayerTensors], rows: Tensor
    ) -> None:
        """Gradients of all parameters from ``output_gradient``; call it after :meth:`forward`."""
        head, head_gradient = parameters[self.depth], gradients[self.depth]
        if self.depth == 0:
            self._first_backward(self.output_gradient, rows, head, head_gradient, None)
            return
        if head_gradient.bias is not None:
            torch.sum(self.output_gradient, dim=2, keepdim=True, out=head_gradient.bias)
        affine_weight_gradient(self.output_gradient, self.layers[-1].a, head_gradient.weight)
        place = 0
        grad = self.layers[-1].scratch[place]
        head_input_gradient(head.weight, self.output_gradient, grad)
        for number in range(self.depth - 1, -1, -1):
            layer, tensors, into = self.layers[number], parameters[number], gradients[number]
            # a residual layer still needs the gradient of its output for the layer below
            target = 1 - place if layer.residual else place
            inner = layer.scratch[target]
            if layer.keep is not None:
                torch.mul(grad, layer.keep, out=inner)
            if layer.compiled is not None:
                if target != place and layer.keep is None:
                    inner.copy_(grad)
                layer.compiled.backward(inner)
            for view in layer.backward_views:
                outer = view.gradients[place if layer.keep is None else target]
                view.kernel.backward(outer, view.saved, view.gradients[target])
            if self._normalize:
                self._normalize_backward(number, layer, tensors, into, inner)
            if number == 0:
                self._first_backward(inner, rows, tensors, into, grad if layer.residual else None)
                return
            if into.bias is not None:
                torch.sum(inner, dim=2, keepdim=True, out=into.bias)
            below = self.layers[number - 1]
            affine_weight_gradient(inner, below.a, into.weight)
            if layer.residual:
                affine_input_gradient(tensors.weight, inner, grad, accumulate=True)
            else:
                place = 1 - place
                grad = below.scratch[place]
                affine_input_gradient(tensors.weight, inner, grad)
