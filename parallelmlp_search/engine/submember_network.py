"""A bucket whose members each stand for several plain networks: unfolded, computed as those, folded back.

Submember ``k`` of a member is the plain network with the weights ``W_k[o, i] = s_k[o] W[o, i] c_k[i]``, where
``s_k`` is its adapter of outputs and ``c_k`` that of inputs times the scales of inputs, each where there is
one. From ``G_k``, the gradient by ``W_k``, come ``dW = sum_k s_k G_k c_k``, ``dc_k[i] = sum_o W s_k G_k`` and
``ds_k[o] = sum_i W c_k G_k``. So adapters never touch rows, and everything that plain networks can do,
submembers can. The plain twins are the modules of :mod:`parallelmlp_search.packing.submembers`.

An embedding of categories is a low rank of the first layer: the weights of their columns are ``V E^T``,
where ``V`` are those of the numbers that a category becomes, and ``E`` (categories, numbers) those numbers.
From ``G``, the gradient by ``V E^T``, come ``dV = G E`` and ``dE = G^T V``. The twin is
:class:`~parallelmlp_search.packing.modules.CategoryEmbedding`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from parallelmlp_search.engine.bucket_network import BucketNetwork
from parallelmlp_search.engine.buffers import Arena, LayerTensors, arena_size, bind
from parallelmlp_search.engine.embedding import EmbeddingTensors
from parallelmlp_search.kernels.losses import Loss
from parallelmlp_search.packing.layout import Bucket, aligned, expanded_layout
from parallelmlp_search.packing.submembers import log_probabilities, logits_of

__all__ = ["SubmemberNetwork", "dropout_shift", "expanded_size"]


def dropout_shift(submember: int, n_submembers: int, n_rows: int) -> int:
    """Rows of a batch that a submember is ahead of the first in the member's fields of dropout.

    Its noise is that of other rows then: as good as noise of its own, and still a function of the step alone.
    """
    return submember * n_rows // n_submembers


def expanded_size(bucket: Bucket, n_rows: int, training: bool) -> int:
    """Elements that a bucket of members to be unfolded takes from the arena, rounded up."""
    layout = expanded_layout(bucket, _at_once(bucket, training))
    first = aligned(math.prod(_first_weights(bucket, training))) if bucket.shape.categories else 0
    return arena_size(layout.buckets[0], n_rows, training) + (1 + training) * (layout.size + first)


def _first_weights(bucket: Bucket, training: bool) -> tuple[int, int, int, int]:
    """Members, submembers, neurons and inputs of the first layer, embedded."""
    shape = bucket.shape
    width = (*shape.widths, shape.n_outputs)[0]
    return bucket.n_members, _at_once(bucket, training), width, shape.fan_in


def _at_once(bucket: Bucket, training: bool) -> int:
    """Submembers that are there at the same time: one while predicting, so that memory does not grow."""
    return bucket.shape.submembers if training else 1


class SubmemberNetwork:
    """Buffers and passes of one bucket, with the methods of
    :class:`~parallelmlp_search.engine.bucket_network.BucketNetwork` and their parameters.

    Attributes
    ----------
    output_gradient
        ``(P K, C, N)``: gradient by the outputs of all submembers, if training.
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
        self.n_members, self.training = bucket.n_members, training
        self._submembers, self._at_once = bucket.shape.submembers, _at_once(bucket, training)
        self._shifts = [dropout_shift(k, self._submembers, n_rows) for k in range(self._submembers)]
        self._dropout, self._classifies = training and bucket.shape.dropout, bucket.shape.classifies
        layout = expanded_layout(bucket, self._at_once)
        self._plain = BucketNetwork(
            layout.buckets[0],
            n_rows,
            arena,
            dtype=dtype,
            device=device,
            training=training,
            dropout=None if dropout is None else dropout.repeat_interleave(self._at_once, 0),
            compiled=compiled,
        )
        self.seen = self._plain.seen
        # behind the buffers of the plain network, which begins the arena anew
        self._parameters = bind(arena.take(layout.size), layout, 0)
        self._unfolded = [self._apart(tensors) for tensors in self._parameters]
        # weights of the first layer, before categories become columns
        self._runs = list(bucket.shape.input_runs()) if bucket.shape.categories else []
        self._embedded = arena.take(*_first_weights(bucket, training)) if self._runs else None
        if training:
            self._embedded_grad = arena.take(*_first_weights(bucket, training)) if self._runs else None
            self.output_gradient = self._plain.output_gradient
            self._gradients = bind(arena.take(layout.size), layout, 0)
            self._grads = [self._apart(tensors) for tensors in self._gradients]

    def _apart(self, tensors: LayerTensors) -> LayerTensors:
        """The plain networks' tensors with members and submembers apart."""
        return _mapped(tensors, self._split)

    def _split(self, tensor: Tensor) -> Tensor:
        """What plain networks have ``(P K, ...)`` as ``(P, K, ...)``."""
        return tensor.view(self.n_members, -1, *tensor.shape[1:])

    def draw_dropout(self, fields: Sequence[Tensor], rates: Tensor | None = None) -> None:
        """Submembers take the noise of different rows of the shared fields, see :func:`dropout_shift`."""
        if not self._dropout:
            return
        rolled = [torch.stack([field.roll(-shift, 1) for shift in self._shifts]) for field in fields]
        self._plain.draw_dropout(rolled, None if rates is None else self._repeated(rates))

    def _repeated(self, values: Tensor) -> Tensor:
        """Values ``(P,)`` of members as those of their submembers ``(P K,)``."""
        return values.unsqueeze(1).expand(-1, self._submembers).reshape(-1)

    def forward(self, parameters: Sequence[LayerTensors], rows: Tensor) -> Tensor:
        """Outputs ``(P K, C, N)`` of all submembers, those of a member side by side, while training."""
        self._unfold(parameters, slice(0, self._at_once))
        return self._plain.forward(self._parameters, rows)

    def predict(self, parameters: Sequence[LayerTensors], rows: Tensor) -> Tensor:
        """What members say ``(P, C, N)``: the mean of their submembers' outputs, or the logits of that of
        their probabilities."""
        total: Tensor | None = None
        for first in range(0, self._submembers, self._at_once):
            self._unfold(parameters, slice(first, first + self._at_once))
            outputs = self._plain.forward(self._parameters, rows)
            found = self._split(log_probabilities(outputs, 1) if self._classifies else outputs)
            found = found.logsumexp(1) if self._classifies else found.sum(1)
            add = torch.logaddexp if self._classifies else torch.add
            total = found if total is None else add(total, found)
        assert total is not None
        if not self._classifies:
            return total.div_(self._submembers)
        return logits_of(total - math.log(self._submembers), outputs.shape[1])

    def losses(
        self, loss: Loss, outputs: Tensor, target: Tensor, weight: Tensor | None, smoothing: Tensor | None
    ) -> Tensor:
        """Losses ``(P,)``, each the mean of the losses of a member's submembers."""
        smoothing = None if smoothing is None else self._repeated(smoothing)
        found = loss(outputs, target, self.output_gradient, weight, smoothing)
        self.output_gradient.div_(self._submembers)
        return self._split(found).mean(1)

    def backward(
        self, parameters: Sequence[LayerTensors], gradients: Sequence[LayerTensors], rows: Tensor
    ) -> None:
        """Gradients of all parameters from ``output_gradient``; call it after :meth:`forward`."""
        self._plain.backward(self._parameters, self._gradients, rows)
        self._fold(parameters, gradients)

    def _unfold(self, parameters: Sequence[LayerTensors], chosen: slice) -> None:
        """Parameters of the ``chosen`` submembers of each member."""
        for number, (tensors, into) in enumerate(zip(parameters, self._unfolded, strict=True)):
            own = _by_submember(tensors, self._submembers, head=number == len(parameters) - 1)
            own = _mapped(own, lambda tensor: tensor[:, chosen] if tensor.shape[1] > 1 else tensor)
            weight = into.weight
            if number == 0 and self._embedded is not None:
                weight = self._embedded
            for source, target in _pairs(own, into._replace(weight=weight)):
                target.copy_(source)
            for factor in (own.output_adapter, own.input_adapter, own.scale):
                if factor is not None:
                    weight.mul_(factor)
            if own.category is not None:
                for columns, inputs, numbers in self._runs:
                    values = weight[..., inputs]
                    if numbers is not None:
                        values = values @ _embedding(own.category, numbers, inputs).transpose(2, 3)
                    into.weight[..., columns] = values

    def _fold_categories(self, tensors: LayerTensors, into: LayerTensors, grad: LayerTensors) -> LayerTensors:
        """Gradients of the embedding, and those of the first layer with weights before it."""
        assert self._embedded is not None
        assert self._embedded_grad is not None
        assert tensors.category is not None
        assert into.category is not None
        for columns, inputs, numbers in self._runs:
            values = grad.weight[..., columns]
            if numbers is not None:
                product = values.transpose(2, 3) @ self._embedded[..., inputs]
                _embedding(into.category, numbers, inputs).copy_(product.sum(1, keepdim=True))
                values = values @ _embedding(tensors.category, numbers, inputs)
            self._embedded_grad[..., inputs] = values
        return grad._replace(weight=self._embedded_grad)

    def _fold(self, parameters: Sequence[LayerTensors], gradients: Sequence[LayerTensors]) -> None:
        """Gradients of members from those of their submembers."""
        for number, (tensors, into, grad) in enumerate(zip(parameters, gradients, self._grads, strict=True)):
            head = number == len(parameters) - 1
            own, into = (_by_submember(each, self._submembers, head=head) for each in (tensors, into))
            if own.category is not None:
                grad = self._fold_categories(own, into, grad)
            columns = own.input_adapter
            if own.scale is not None:
                columns = own.scale if columns is None else own.scale * columns
            if own.output_adapter is not None:
                assert into.output_adapter is not None
                assert columns is not None
                product = (grad.weight * own.weight).mul_(columns)
                torch.sum(product, dim=3, keepdim=True, out=into.output_adapter)
                grad.weight.mul_(own.output_adapter)
            if columns is not None:
                product = (grad.weight * own.weight).sum(dim=2, keepdim=True)
                if into.input_adapter is not None:
                    into.input_adapter.copy_(product if own.scale is None else product * own.scale)
                if into.scale is not None:
                    product = product if own.input_adapter is None else product * own.input_adapter
                    torch.sum(product, dim=1, keepdim=True, out=into.scale)
                grad.weight.mul_(columns)
            for target, source in _pairs(into, grad):
                if target.shape[1] == 1:
                    torch.sum(source, dim=1, keepdim=True, out=target)
                else:
                    target.copy_(source)


def _embedding(category: Tensor, numbers: slice, inputs: slice) -> Tensor:
    """The part (P, 1, categories, dimension) of a block (P, 1, S, 1) that one column's categories have."""
    part = category[:, :, numbers, 0]
    return part.view(*part.shape[:2], -1, inputs.stop - inputs.start)


def _mapped(tensors: LayerTensors, change: Callable[[Tensor], Tensor]) -> LayerTensors:
    """The same with every tensor changed."""
    changed: dict[str, Any] = {
        kind: change(tensor)
        for kind, tensor in tensors._asdict().items()
        if tensor is not None and kind != "embedding"
    }
    if tensors.embedding is not None:
        changed["embedding"] = EmbeddingTensors(*(change(tensor) for tensor in tensors.embedding))
    return tensors._replace(**changed)


def _by_submember(tensors: LayerTensors, n_submembers: int, *, head: bool) -> LayerTensors:
    """Views of members' tensors with an axis of submembers behind that of members, where they share of
    length 1; weights are ``(P, K, O, I)``, and all others have as many axes."""
    own: dict[str, Any] = {}
    if head:
        for kind in ("weight", "bias"):
            block = getattr(tensors, kind)
            own[kind] = None if block is None else block.view(len(block), n_submembers, -1, block.shape[2])
    if tensors.input_adapter is not None:
        own["input_adapter"] = tensors.input_adapter.unsqueeze(2)
    if tensors.output_adapter is not None:
        own["output_adapter"] = tensors.output_adapter.unsqueeze(3)
        own["bias"] = None if tensors.bias is None else tensors.bias.unsqueeze(3)
    return _mapped(tensors, lambda tensor: tensor.unsqueeze(1))._replace(**own)


def _pairs(tensors: LayerTensors, others: LayerTensors) -> Iterator[tuple[Tensor, Tensor]]:
    """What both have and what is the same in both, but for factors on weights."""
    for kind in ("weight", "bias", "gain", "shift"):
        if getattr(tensors, kind) is not None:
            yield getattr(tensors, kind), getattr(others, kind)
    if tensors.embedding is not None:
        assert others.embedding is not None
        yield from zip(tensors.embedding, others.embedding, strict=True)
