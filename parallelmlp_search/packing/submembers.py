"""Submembers that share weights, as plain modules: the reference for the expanded networks of a member.

TabM of Gorishniy et al. 2024 ("TabM: Advancing tabular deep learning with parameter-efficient ensembling"),
after BatchEnsemble of Wen et al. 2020. A network of ``K`` submembers works on rows ``(N, K, D)``:
:class:`Submembers` repeats each row, :class:`AdaptedLinear` is a layer with factors per submember, and
:class:`SubmemberHeads` and :class:`SubmemberMean` are the last two modules. To train it with torch, remove
the last module, so that each submember has its own loss; a loss of the mean would couple the submembers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def _random_signs(*shape: int) -> Tensor:
    """Factors of -1 and 1, equally likely."""
    return torch.randint(0, 2, shape).mul_(2).sub_(1).to(torch.get_default_dtype())


def _uniform(*shape: int, fan_in: int) -> nn.Parameter:
    """Weights or biases drawn as by ``torch.nn.Linear``."""
    bound = 1.0 / math.sqrt(fan_in)
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


class Submembers(nn.Module):
    """Repeats each row for each submember.

    Parameters
    ----------
    submembers
        Number of submembers ``K``.
    """

    def __init__(self, submembers: int) -> None:
        super().__init__()
        self.submembers = submembers

    def forward(self, x: Tensor) -> Tensor:
        """Map rows ``(N, D)`` to ``(N, K, D)``."""
        return x.unsqueeze(1).expand(-1, self.submembers, -1)

    def extra_repr(self) -> str:
        """Return the settings for ``repr``."""
        return f"submembers={self.submembers}"


class AdaptedLinear(nn.Module):
    """Linear layer that submembers share up to factors: ``s * (W (r * x)) + b``.

    Parameters
    ----------
    submembers
        Number of submembers ``K``.
    in_features, out_features
        Inputs ``I`` and outputs ``O``.
    bias
        True for biases.
    full
        True for factors on the outputs and for biases per submember.
    first
        True for the first layer, whose factors start as random signs, so that submembers differ.

    Attributes
    ----------
    input_adapter, output_adapter
        ``r`` (K, I), and ``s`` (K, O) or None.
    weight, bias
        ``W`` (O, I), and ``b`` (O,), (K, O) or None.
    """

    def __init__(
        self,
        submembers: int,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        full: bool = False,
        first: bool = True,
    ) -> None:
        super().__init__()
        self.submembers, self.in_features, self.out_features = submembers, in_features, out_features
        self.full = full
        factors = _random_signs if first else torch.ones
        self.input_adapter = nn.Parameter(factors(submembers, in_features))
        self.weight = _uniform(out_features, in_features, fan_in=in_features)
        self.output_adapter = nn.Parameter(torch.ones(submembers, out_features)) if full else None
        own = (submembers,) if full else ()
        self.bias = _uniform(*own, out_features, fan_in=in_features) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Map rows ``(N, K, I)`` to ``(N, K, O)``."""
        z = nn.functional.linear(x * self.input_adapter, self.weight)
        if self.output_adapter is not None:
            z = z * self.output_adapter
        return z if self.bias is None else z + self.bias

    def extra_repr(self) -> str:
        """Return the settings for ``repr``."""
        return (
            f"submembers={self.submembers}, in_features={self.in_features}, "
            f"out_features={self.out_features}, bias={self.bias is not None}, full={self.full}"
        )


class SubmemberHeads(nn.Module):
    """Linear layer of each submember.

    Parameters
    ----------
    submembers
        Number of submembers ``K``.
    in_features, out_features
        Inputs ``I`` and outputs ``C``.
    bias
        True for biases.

    Attributes
    ----------
    weight, bias
        ``(K C, I)``, one submember below the other, and ``(K C,)`` or None.
    """

    def __init__(self, submembers: int, in_features: int, out_features: int, *, bias: bool = True) -> None:
        super().__init__()
        self.submembers, self.in_features, self.out_features = submembers, in_features, out_features
        self.weight = _uniform(submembers * out_features, in_features, fan_in=in_features)
        self.bias = _uniform(submembers * out_features, fan_in=in_features) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Map rows ``(N, K, I)`` to ``(N, K, C)``."""
        weight = self.weight.view(self.submembers, self.out_features, self.in_features)
        z = torch.einsum("nki,kci->nkc", x, weight)
        return z if self.bias is None else z + self.bias.view(self.submembers, self.out_features)

    def extra_repr(self) -> str:
        """Return the settings for ``repr``."""
        return (
            f"submembers={self.submembers}, in_features={self.in_features}, "
            f"out_features={self.out_features}, bias={self.bias is not None}"
        )


class SubmemberMean(nn.Module):
    """Mean of the outputs of all submembers, or logits of the mean of their probabilities.

    Parameters
    ----------
    classifies
        True if outputs are logits: one for two classes, else one per class.
    """

    def __init__(self, *, classifies: bool = False) -> None:
        super().__init__()
        self.classifies = classifies

    def forward(self, x: Tensor) -> Tensor:
        """Map outputs ``(N, K, C)`` to ``(N, C)``."""
        if not self.classifies:
            return x.mean(dim=1)
        logs = log_probabilities(x, dim=2)
        return logits_of(logs.logsumexp(dim=1) - math.log(x.shape[1]), x.shape[2])

    def extra_repr(self) -> str:
        """Return the settings for ``repr``."""
        return f"classifies={self.classifies}"


def log_probabilities(outputs: Tensor, dim: int) -> Tensor:
    """Return log-probabilities of all classes along ``dim``, of both classes for a single logit."""
    if outputs.shape[dim] > 1:
        return outputs.log_softmax(dim)
    # both from the logit, so that neither is lost to rounding
    return nn.functional.logsigmoid(torch.cat([-outputs, outputs], dim))


def logits_of(logs: Tensor, n_outputs: int) -> Tensor:
    """Return the ``n_outputs`` logits of log-probabilities whose classes are axis 1."""
    return logs if n_outputs > 1 else logs[:, 1:] - logs[:, :1]
