"""Hidden layer of a bucket between its products: layer normalization, activation, dropout, residual."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from parallelmlp_search.engine.parameter_views import LayerTensors
from parallelmlp_search.engine.storage import PassOptions, Shapes
from parallelmlp_search.kernels.activations import ACTIVATION_KERNELS, ActivationKernel
from parallelmlp_search.kernels.numba.dispatch import CompiledActivations
from parallelmlp_search.packing.layout import Bucket

LAYER_NORM_EPSILON = 1e-5


class _Segment(NamedTuple):
    """Rows of a bucket with the same activation, as views of every buffer that the activation uses."""

    kernel: ActivationKernel
    rows: slice
    z: Tensor
    activated: Tensor  # output of the activation
    output: Tensor  # output of the layer
    saved: Tensor  # input of the activation's backward pass
    mask: Tensor | None  # zeroes padded neurons if the activation of 0 is not 0
    keep: Tensor | None  # dropout factors
    gradients: tuple[Tensor, ...]  # rows of the scratch buffers


def _combines(bucket: Bucket, number: int, options: PassOptions) -> bool:
    """True if the output of a layer is not the output of its activation: dropout or a residual."""
    return _is_residual(bucket, number) or (options.training and bucket.shape.dropout)


def _is_residual(bucket: Bucket, number: int) -> bool:
    return bool(bucket.shape.residual) and bucket.shape.residual[number]


def hidden_shapes(bucket: Bucket, options: PassOptions) -> Shapes:
    """Return the shapes of the buffers of all hidden layers of a bucket."""
    shape = bucket.shape
    shapes: Shapes = {}
    saves_output = all(ACTIVATION_KERNELS[segment.activation].saves_output for segment in bucket.segments)
    for number, width in enumerate(shape.widths):
        own = {
            "z": True,
            # the output may overwrite z unless the backward pass needs z
            "output": options.training and (_combines(bucket, number, options) or not saves_output),
            "keep": options.training and shape.dropout,
            "normalized": options.training and shape.normalization == "layer",
        }
        full = (bucket.n_members, width, options.n_rows)
        shapes |= {f"{name}{number}": full for name, is_used in own.items() if is_used}
    if options.training:
        largest = (bucket.n_members * max(shape.widths, default=0) * options.n_rows,)
        shapes |= {f"scratch{place}": largest for place in range(3)}
    return shapes


class HiddenLayer:
    """Passes of a hidden layer of a bucket, without its products.

    Parameters
    ----------
    bucket, number, options
        Bucket, number of the layer, and properties of the passes.
    buffers
        Buffers of :func:`hidden_shapes`.

    Attributes
    ----------
    z, output
        Products and output ``(P, H, N)`` of the layer; the same tensor where that is safe.
    residual
        True if the layer adds its input.
    keep
        Dropout factors ``(P, H, N)``, or None.
    scratch
        Three buffers ``(P, H, N)`` for the backward pass, shared by all layers.
    """

    def __init__(
        self, bucket: Bucket, number: int, options: PassOptions, buffers: Mapping[str, Tensor]
    ) -> None:
        self.residual = _is_residual(bucket, number)
        self.z = z = buffers[f"z{number}"]
        self.output = buffers.get(f"output{number}", z)
        self.keep = buffers.get(f"keep{number}")
        self._normalize = bucket.shape.normalization == "layer"
        self._normalized = buffers.get(f"normalized{number}", z)
        self._deviations = torch.empty(0)
        flat = [buffers[f"scratch{place}"] for place in range(3)] if options.training else []
        self.scratch = tuple(part[: z.numel()].view(z.shape) for part in flat)
        widths = torch.tensor([a.widths[number] for a in bucket.architectures]).view(-1, 1, 1)
        self._widths = widths.to(z)
        self._mask = None
        if bucket.padded_layers()[number]:
            self._mask = (torch.arange(z.shape[1]).view(1, -1, 1) < widths).to(z)
        # views are made once: each costs 2 us, as much as a call
        combines = _combines(bucket, number, options)
        segments = [
            self._segment(segment.activation, slice(segment.start, segment.stop), combines)
            for segment in bucket.segments
        ]
        self._compiled = None
        if options.compiled:
            kernels, in_place = [], []
            for part in segments:
                count = part.rows.stop - part.rows.start
                kernels += [part.kernel] * count
                in_place += [part.activated.data_ptr() == part.z.data_ptr()] * count
            self._compiled = CompiledActivations(z, self.output, kernels, in_place)
        self._compiled_names = frozenset() if self._compiled is None else self._compiled.covers
        self._backward_segments = [part for part in segments if part.kernel.name not in self._compiled_names]
        has_more = combines or any(part.mask is not None for part in segments)
        self._forward_segments = segments if has_more else self._backward_segments

    def _segment(self, activation: str, rows: slice, combines: bool) -> _Segment:
        kernel = ACTIVATION_KERNELS[activation]
        activated = self.z[rows] if combines and kernel.saves_output else self.output[rows]
        return _Segment(
            kernel,
            rows,
            z=self.z[rows],
            activated=activated,
            output=self.output[rows],
            saved=activated if kernel.saves_output else self.z[rows],
            mask=None if self._mask is None or kernel.zero_at_zero else self._mask[rows],
            keep=None if self.keep is None else self.keep[rows],
            gradients=tuple(part[rows] for part in self.scratch),
        )

    def forward(self, tensors: LayerTensors, inputs: Tensor | None) -> None:
        """Compute :attr:`output` from :attr:`z`; a residual layer adds ``inputs`` (P or 1, H, N)."""
        self._tensors = tensors
        if self._normalize:
            self._normalize_forward(tensors)
        if self._compiled is not None:
            self._compiled.forward()
        for part in self._forward_segments:
            if part.kernel.name not in self._compiled_names:
                part.kernel.forward(part.z, part.activated)
            if part.mask is not None:
                part.activated.mul_(part.mask)
            current = part.activated
            if part.keep is not None:
                current = torch.mul(current, part.keep, out=part.output)
            if self.residual:
                assert inputs is not None
                torch.add(current, inputs if len(inputs) == 1 else inputs[part.rows], out=part.output)

    def backward(self, place: int, into: LayerTensors) -> Tensor:
        """Return the gradient ``(P, H, N)`` of :attr:`z` in a scratch buffer, and write those of parameters.

        ``place`` is the scratch buffer with the gradient of the output. A residual layer leaves it as it is.
        """
        target = 1 - place if self.residual else place
        grad, inner = self.scratch[place], self.scratch[target]
        if self.keep is not None:
            torch.mul(grad, self.keep, out=inner)
        if self._compiled is not None:
            if target != place and self.keep is None:
                inner.copy_(grad)
            self._compiled.backward(inner)
        source = place if self.keep is None else target
        for part in self._backward_segments:
            part.kernel.backward(part.gradients[source], part.saved, part.gradients[target])
        if self._normalize:
            self._normalize_backward(inner, into)
        return inner

    def _normalize_forward(self, tensors: LayerTensors) -> None:
        """Layer normalization over the true neurons of each member and row (Ba et al. 2016), in place."""
        assert tensors.gain is not None
        assert tensors.shift is not None
        z = self.z
        z.sub_(z.sum(dim=1, keepdim=True).div_(self._widths))
        if self._mask is not None:
            z.mul_(self._mask)
        inverse = (z * z).sum(dim=1, keepdim=True).div_(self._widths).add_(LAYER_NORM_EPSILON).rsqrt_()
        torch.mul(z, inverse, out=self._normalized)
        self._deviations = inverse
        torch.addcmul(tensors.shift, self._normalized, tensors.gain, out=z)

    def _normalize_backward(self, grad: Tensor, into: LayerTensors) -> None:
        assert self._tensors.gain is not None
        assert into.gain is not None
        assert into.shift is not None
        product = self.scratch[2]
        torch.mul(grad, self._normalized, out=product)
        torch.sum(product, dim=2, keepdim=True, out=into.gain)
        torch.sum(grad, dim=2, keepdim=True, out=into.shift)
        grad.mul_(self._tensors.gain)
        torch.mul(grad, self._normalized, out=product)
        mean = grad.sum(dim=1, keepdim=True).div_(self._widths)
        slope = product.sum(dim=1, keepdim=True).div_(self._widths)
        grad.sub_(mean).addcmul_(self._normalized, slope, value=-1.0)
        grad.mul_(self._deviations)
        if self._mask is not None:
            grad.mul_(self._mask)
