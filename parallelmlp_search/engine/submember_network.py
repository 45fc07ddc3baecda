"""Network of a bucket whose members are expanded into plain networks: submembers, embedded categories.

Submember ``k`` of a member is the plain network with the weights ``W_k[o, i] = s_k[o] W[o, i] c_k[i]``, where
``s_k`` is its output adapter and ``c_k`` its input adapter times the scales of inputs. From ``G_k``, the
gradient by ``W_k``, follow ``dW = sum_k s_k G_k c_k``, ``dc_k[i] = sum_o W s_k G_k`` and
``ds_k[o] = sum_i W c_k G_k``. Adapters never touch rows, so submembers support everything that plain networks
do. The references are the modules of :mod:`parallelmlp_search.packing.submembers`.

An embedding of categories is a low-rank first layer: the weights of the one-hot columns are ``V E^T``, with
the weights ``V`` of the embedding's outputs and the embedding ``E`` (categories, dimension). From ``G``, the
gradient by ``V E^T``, follow ``dV = G E`` and ``dE = G^T V``. The reference is
:class:`~parallelmlp_search.packing.modules.CategoryEmbedding`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from parallelmlp_search.engine.bucket_network import BucketNetwork, Targets, bucket_shapes
from parallelmlp_search.engine.parameter_views import EmbeddingTensors, LayerTensors, bind
from parallelmlp_search.engine.storage import PassOptions, Shapes, carve, n_elements
from parallelmlp_search.kernels.losses import Loss
from parallelmlp_search.packing.layout import Bucket, Layout, expanded_layout
from parallelmlp_search.packing.submembers import log_probabilities, logits_of


def _expanded(bucket: Bucket, options: PassOptions) -> Layout:
    """Layout of the plain networks; prediction expands one submember at a time, to save memory."""
    return expanded_layout(bucket, bucket.shape.submembers if options.training else 1)


def submember_shapes(bucket: Bucket, options: PassOptions) -> Shapes:
    """Return the shapes of all buffers of a bucket of expanded members."""
    layout, shape = _expanded(bucket, options), bucket.shape
    width = (*shape.widths, shape.n_outputs)[0]
    shapes: Shapes = {"parameters": (layout.size,)}
    if shape.categories:  # weights of the first layer, before they are expanded to one-hot columns
        shapes["embedded_weight"] = (
            bucket.n_members,
            layout.n_members // bucket.n_members,
            width,
            shape.fan_in,
        )
    if options.training:
        shapes |= {f"{name}_gradient": size for name, size in shapes.items()}
    return shapes | {"plain": (n_elements(bucket_shapes(layout.buckets[0], options)),)}


MAX_EMBEDDED = 1 << 22
"""Most values of embedded rows that a prediction keeps for all submembers: 16 MiB in float32."""


class SubmemberNetwork:
    """Passes of one bucket of expanded members; the interface is that of :class:`BucketNetwork`.

    Parameters
    ----------
    bucket, options, storage, dropout
        As for :class:`~parallelmlp_search.engine.bucket_network.BucketNetwork`; the storage is for the
        buffers of :func:`submember_shapes`.

    Attributes
    ----------
    output_gradient
        Gradient ``(P K, C, N)`` by the outputs of all submembers.
    """

    def __init__(
        self, bucket: Bucket, options: PassOptions, storage: Tensor, dropout: Tensor | None = None
    ) -> None:
        self._n_members, self._submembers = bucket.n_members, bucket.shape.submembers
        self._at_once = self._submembers if options.training else 1
        size = bucket.n_members * bucket.shape.expanded.fan_in * options.n_rows
        self._kept_windows = MAX_EMBEDDED // size if bucket.shape.n_periodic and self._submembers > 1 else 0
        # each submember uses the noise of other rows, which is as good as noise of its own
        self._shifts = [k * options.n_rows // self._submembers for k in range(self._submembers)]
        self._dropout, self._classifies = options.training and bucket.shape.dropout, bucket.shape.classifies
        (plain,) = _expanded(bucket, options).buckets
        buffers = carve(storage, submember_shapes(bucket, options))
        rates = None if dropout is None else dropout.repeat_interleave(self._at_once, 0)
        self._plain = BucketNetwork(plain, options, buffers["plain"], rates)
        self._parameters = bind(buffers["parameters"], plain)
        self._expanded = [_mapped(tensors, self._split) for tensors in self._parameters]
        self._runs = list(bucket.shape.input_runs()) if bucket.shape.categories else []
        self._embedded = buffers.get("embedded_weight")
        if options.training:
            self.output_gradient = self._plain.output_gradient
            self._embedded_gradient = buffers.get("embedded_weight_gradient")
            self._gradients = bind(buffers["parameters_gradient"], plain)
            self._expanded_gradients = [_mapped(tensors, self._split) for tensors in self._gradients]

    def _split(self, tensor: Tensor) -> Tensor:
        """View ``(P K, ...)`` as ``(P, K, ...)``."""
        return tensor.view(self._n_members, -1, *tensor.shape[1:])

    def draw_dropout(self, fields: Sequence[Tensor], rates: Tensor | None = None) -> None:
        """Draw dropout as :meth:`BucketNetwork.draw_dropout`; each submember has the noise of other rows."""
        if not self._dropout:
            return
        shifted = [torch.stack([field.roll(-shift, 1) for shift in self._shifts]) for field in fields]
        self._plain.draw_dropout(shifted, None if rates is None else self._repeated(rates))

    def _repeated(self, values: Tensor) -> Tensor:
        """Repeat values ``(P,)`` of members for their submembers ``(P K,)``."""
        return values.unsqueeze(1).expand(-1, self._submembers).reshape(-1)

    def forward(self, parameters: Sequence[LayerTensors], rows: Tensor) -> Tensor:
        """Return the outputs ``(P K, C, N)`` of all submembers; for training only."""
        self._members = parameters
        self._expand(self._by_submember(parameters), slice(0, self._submembers))
        return self._plain.forward(self._parameters, rows)

    def predict(self, parameters: Sequence[LayerTensors], windows: Sequence[Tensor]) -> Iterable[Tensor]:
        """Return the outputs ``(P, C, N)`` of members, the mean of their submembers, for each of some rows.

        For classes these are the logits of the mean probabilities. Submembers are expanded once for all rows.
        """
        totals: list[Tensor] = []
        embedded: list[Tensor] = []
        own = self._by_submember(parameters)
        add = torch.logaddexp if self._classifies else torch.add
        for submember in range(self._submembers):
            self._expand(own, slice(submember, submember + 1))
            for number, rows in enumerate(windows):
                # submembers share the embedding
                known = embedded[number] if number < len(embedded) else None
                outputs = self._plain.forward(self._parameters, rows, embedded=known)
                if submember == 0 and number < self._kept_windows:
                    embedded.append(self._plain.embedded())
                found = log_probabilities(outputs, 1) if self._classifies else outputs
                if submember == 0:
                    totals.append(found.clone())
                else:
                    totals[number] = add(totals[number], found)
        if not self._classifies:
            return (total.div_(self._submembers) for total in totals)
        n_outputs = self._plain.outputs.shape[1]
        return (logits_of(total - math.log(self._submembers), n_outputs) for total in totals)

    def losses(self, loss: Loss, targets: Targets) -> Tensor:
        """Return the mean losses ``(P,)`` of submembers; write :attr:`output_gradient`."""
        if targets.smoothing is not None:
            targets = targets._replace(smoothing=self._repeated(targets.smoothing))
        found = self._plain.losses(loss, targets)
        self.output_gradient.div_(self._submembers)
        return self._split(found).mean(1)

    def backward(self, gradients: Sequence[LayerTensors]) -> None:
        """Write the gradients of all parameters of the last :meth:`forward`."""
        self._plain.backward(self._gradients)
        self._merge(self._members, gradients)

    def _by_submember(self, parameters: Sequence[LayerTensors]) -> list[LayerTensors]:
        """Views of the parameters of all layers with an axis of submembers."""
        last = len(parameters) - 1
        return [
            _by_submember(tensors, self._submembers, head=number == last)
            for number, tensors in enumerate(parameters)
        ]

    def _expand(self, members: Sequence[LayerTensors], chosen: slice) -> None:
        """Write the parameters of the plain networks of ``chosen`` submembers of each member."""
        for number, (tensors, into) in enumerate(zip(members, self._expanded, strict=True)):
            own = _mapped(tensors, lambda tensor: tensor[:, chosen] if tensor.shape[1] > 1 else tensor)
            weight = into.weight
            if number == 0 and self._embedded is not None:
                weight = self._embedded
            for source, target in _pairs(own, into._replace(weight=weight)):
                target.copy_(source)
            for factor in (own.output_adapter, own.input_adapter, own.scale):
                if factor is not None:
                    weight.mul_(factor)
            if own.category is not None:
                for columns, inputs, elements in self._runs:
                    values = weight[..., inputs]
                    if elements is not None:
                        values = values @ _embedding(own.category, elements, inputs).transpose(2, 3)
                    into.weight[..., columns] = values

    def _merge_categories(
        self, tensors: LayerTensors, into: LayerTensors, grad: LayerTensors
    ) -> LayerTensors:
        """Gradients of the embeddings of categories; returns those of the layer with unexpanded weights."""
        assert self._embedded is not None
        assert self._embedded_gradient is not None
        assert tensors.category is not None
        assert into.category is not None
        for columns, inputs, elements in self._runs:
            values = grad.weight[..., columns]
            if elements is not None:
                product = values.transpose(2, 3) @ self._embedded[..., inputs]
                _embedding(into.category, elements, inputs).copy_(product.sum(1, keepdim=True))
                values = values @ _embedding(tensors.category, elements, inputs)
            self._embedded_gradient[..., inputs] = values
        return grad._replace(weight=self._embedded_gradient)

    def _merge(self, parameters: Sequence[LayerTensors], gradients: Sequence[LayerTensors]) -> None:
        """Write the gradients of members from those of their plain networks."""
        layers = zip(parameters, gradients, self._expanded_gradients, strict=True)
        for number, (tensors, into, grad) in enumerate(layers):
            head = number == len(parameters) - 1
            own, into = (_by_submember(each, self._submembers, head=head) for each in (tensors, into))
            if own.category is not None:
                grad = self._merge_categories(own, into, grad)
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


def _embedding(category: Tensor, elements: slice, inputs: slice) -> Tensor:
    """View (P, 1, categories, dimension) of one embedding in a block (P, 1, S, 1)."""
    part = category[:, :, elements, 0]
    return part.view(*part.shape[:2], -1, inputs.stop - inputs.start)


def _mapped(tensors: LayerTensors, change: Callable[[Tensor], Tensor]) -> LayerTensors:
    """The same parameters with every tensor changed."""
    changed: dict[str, Any] = {
        kind: change(tensor)
        for kind, tensor in tensors._asdict().items()
        if tensor is not None and kind != "embedding"
    }
    if tensors.embedding is not None:
        changed["embedding"] = EmbeddingTensors(*(change(tensor) for tensor in tensors.embedding))
    return tensors._replace(**changed)


def _by_submember(tensors: LayerTensors, n_submembers: int, *, head: bool) -> LayerTensors:
    """Views of the parameters of members with an axis of submembers after that of members.

    The axis has length 1 where submembers share. Weights are ``(P, K, O, I)``; all others have as many axes.
    """
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
    """Parameters that members and their plain networks both have."""
    for kind in ("weight", "bias", "gain", "shift"):
        if getattr(tensors, kind) is not None:
            yield getattr(tensors, kind), getattr(others, kind)
    if tensors.embedding is not None:
        assert others.embedding is not None
        yield from zip(tensors.embedding, others.embedding, strict=True)
