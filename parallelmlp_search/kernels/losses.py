"""Losses of each member with their gradients by the outputs.

Every loss takes outputs ``(P, C, N)``, overwrites a gradient buffer of the same shape and returns the losses
``(P,)``. The loss of a member is the weighted mean over the ``N`` rows. Losses are summed over members, so
that the gradient of a member does not depend on the others.

Targets: class indices ``(N,)`` for ``cross_entropy``; 0/1 for ``binary_logits``, ``(N,)`` for one logit and
``(C, N)`` for several labels; and ``(C, N)`` numbers for the regression losses. ``binary_logits`` and the
regression losses average over outputs as well, as :mod:`torch.nn` does.

``poisson``, ``gamma`` and ``tweedie`` have a log link: the outputs are logarithms of the predicted mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from parallelmlp_search.exceptions import InvalidParameterError, near_miss
from parallelmlp_search.packing import MAX_LOG


class Loss(Protocol):
    """``loss(outputs, target, gradient, weight=None, smoothing=None) -> (P,)``; fills ``gradient``."""

    def __call__(
        self,
        outputs: Tensor,
        target: Tensor,
        gradient: Tensor,
        weight: Tensor | None = None,
        smoothing: Tensor | None = None,
    ) -> Tensor:
        """Return the losses ``(P,)`` and write the gradient by the outputs.

        Parameters
        ----------
        outputs
            ``(P, C, N)``.
        target
            ``(N,)`` or ``(C, N)``.
        gradient
            ``(P, C, N)``; written.
        weight
            Weights of the rows ``(N,)``, or None.
        smoothing
            Label smoothing of each member ``(P,)``, or None.

        Returns
        -------
        Tensor of shape (P,)
            Losses.
        """
        ...


def _row_shares(outputs: Tensor, weight: Tensor | None) -> Tensor | float:
    """Share of each row in the mean: ``1/N``, or the rows' weights divided by their sum."""
    if weight is None:
        return 1.0 / outputs.shape[-1]
    return weight / weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)


def _cross_entropy(
    outputs: Tensor,
    target: Tensor,
    gradient: Tensor,
    weight: Tensor | None = None,
    smoothing: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of a softmax over ``C`` classes, with label smoothing ``(P,)`` per member.

    The smoothed target is ``(1 - s) onehot + s / C`` (Szegedy et al. 2016), as in
    :class:`torch.nn.CrossEntropyLoss`, but weights multiply whole rows.
    """
    n_members, n_classes, n_rows = outputs.shape
    shares = _row_shares(outputs, weight)
    log_probability = torch.log_softmax(outputs, dim=1)
    torch.exp(log_probability, out=gradient)
    index = target.view(1, 1, n_rows).expand(n_members, 1, n_rows)
    picked = log_probability.gather(1, index)
    if smoothing is None:
        losses = picked.neg_()
        gradient.scatter_add_(1, index, torch.full_like(losses, -1.0))
    else:
        keep = (1.0 - smoothing).view(-1, 1, 1)
        spread = (smoothing / n_classes).view(-1, 1, 1)
        losses = -(keep * picked + spread * log_probability.sum(dim=1, keepdim=True))
        gradient.sub_(spread)
        gradient.scatter_add_(1, index, (-keep).expand(n_members, 1, n_rows))
    gradient.mul_(shares)
    return (losses * shares).sum(dim=(1, 2))


def _binary_logits(
    outputs: Tensor,
    target: Tensor,
    gradient: Tensor,
    weight: Tensor | None = None,
    smoothing: Tensor | None = None,
) -> Tensor:
    """Mean binary cross-entropy of ``C`` logits, with label smoothing ``(P,)`` per member.

    With smoothing the target is ``(1 - s) y + s / 2``: the two-class case of :func:`_cross_entropy`.
    """
    n_outputs = outputs.shape[1]
    shares = _row_shares(outputs, weight) / n_outputs
    wanted = target.to(outputs.dtype).view(1, n_outputs, -1)
    if smoothing is not None:
        wanted = wanted + smoothing.view(-1, 1, 1) * (0.5 - wanted)
    torch.sigmoid(outputs, out=gradient)
    gradient.sub_(wanted).mul_(shares)
    losses = F.binary_cross_entropy_with_logits(outputs, wanted.expand_as(outputs), reduction="none")
    return losses.mul_(shares).sum(dim=(1, 2))


def _elementwise(
    value: Callable[[Tensor], Tensor], slope: Callable[[Tensor], Tensor], name: str, summary: str
) -> Loss:
    """Regression loss from its value and slope as functions of ``outputs - target``."""

    def loss(
        outputs: Tensor,
        target: Tensor,
        gradient: Tensor,
        weight: Tensor | None = None,
        smoothing: Tensor | None = None,
    ) -> Tensor:
        shares = _row_shares(outputs, weight)
        n_outputs = outputs.shape[1]
        residual = torch.sub(outputs, target.view(1, n_outputs, -1))
        torch.mul(slope(residual), shares, out=gradient)
        gradient.div_(n_outputs)
        return (value(residual) * shares).sum(dim=(1, 2)) / n_outputs

    loss.__name__ = name
    loss.__doc__ = summary
    return loss


def _huber(delta: float) -> Loss:
    """Huber loss: quadratic up to ``delta``, linear beyond (Huber 1964)."""

    def value(residual: Tensor) -> Tensor:
        inside = residual.abs()
        quadratic = inside.clamp(max=delta)
        return quadratic * (inside - 0.5 * quadratic)

    return _elementwise(value, lambda r: r.clamp(-delta, delta), "huber", "Huber loss.")


def _quantile(level: float) -> Loss:
    """Quantile (pinball) loss at ``level`` in (0, 1): the minimizer is that quantile (Koenker 1978)."""

    def value(residual: Tensor) -> Tensor:
        return torch.maximum((1.0 - level) * residual, -level * residual)

    def slope(residual: Tensor) -> Tensor:
        # 1 - level above the target, -level below it, and 0 at the target; torch.where of two numbers would
        # be float32 for any residuals
        return (residual > 0).to(residual.dtype).sub_(level).mul_(residual != 0)

    return _elementwise(value, slope, "quantile", "Quantile loss.")


_squared_error = _elementwise(
    lambda r: r * r, lambda r: 2.0 * r, "squared_error", "Mean squared error, as torch.nn.MSELoss."
)


def _log_link(power: float) -> Loss:
    """Half the unit deviance of Tweedie's distribution with this power and a log link, up to a constant.

    The power is 1 for Poisson, 2 for gamma, and between them for amounts that can be zero (Jorgensen, "The
    theory of dispersion models", 1997). Outputs are logarithms of the mean. Beyond :data:`MAX_LOG` the loss
    goes on as a line, so that no exponential overflows.
    """
    up, down = 2.0 - power, 1.0 - power

    def loss(
        outputs: Tensor,
        target: Tensor,
        gradient: Tensor,
        weight: Tensor | None = None,
        smoothing: Tensor | None = None,
    ) -> Tensor:
        shares = _row_shares(outputs, weight)
        n_outputs = outputs.shape[1]
        wanted = target.view(1, n_outputs, -1)
        logs = outputs.clamp(-MAX_LOG, MAX_LOG)
        rising, falling = (up * logs).exp(), (down * logs).exp() * wanted
        slope = rising - falling
        values = (rising / up if up else logs) - (falling / down if down else wanted * logs)
        values += slope * (outputs - logs)
        torch.mul(slope, shares, out=gradient)
        gradient.div_(n_outputs)
        return (values * shares).sum(dim=(1, 2)) / n_outputs

    return loss


LOSSES = (
    "cross_entropy", "binary_logits", "squared_error", "huber", "quantile", "poisson", "gamma", "tweedie",
)  # fmt: skip
"""Names of the losses; a parameter follows a colon, as in ``huber:0.5``, ``quantile:0.9`` or
``tweedie:1.5``."""


def log_link_power(name: str | None) -> float | None:
    """Return the power of a Tweedie loss: 1 for ``poisson``, 2 for ``gamma``; None for other losses.

    Raises
    ------
    InvalidParameterError
        If the power of ``tweedie:POWER`` is not in (1, 2).
    """
    kind, _, argument = (name or "").partition(":")
    if kind == "tweedie":
        power = _number(f"{name}", argument, 1.5)
        if not 1 < power < 2:
            raise InvalidParameterError(
                f"the power of the tweedie loss must lie in (1, 2), but got {power:g}: "
                "use poisson for 1 and gamma for 2"
            )
        return power
    return {"poisson": 1.0, "gamma": 2.0}.get(f"{name}")


def get_loss(name: str) -> Loss:
    """Return the loss of a name.

    Raises
    ------
    InvalidParameterError
        If the name is unknown or its parameter out of range.
    """
    kind, _, argument = name.partition(":")
    plain: dict[str, Loss] = {
        "cross_entropy": _cross_entropy,
        "binary_logits": _binary_logits,
        "squared_error": _squared_error,
    }
    if kind in plain and not argument:
        return plain[kind]
    if (power := log_link_power(name)) is not None:
        return _log_link(power)
    if kind == "huber":
        delta = _number(name, argument, 1.0)
        if not delta > 0:
            raise InvalidParameterError(f"the delta of the huber loss must be > 0, but got {delta:g}")
        return _huber(delta)
    if kind == "quantile":
        level = _number(name, argument, 0.5)
        if not 0 < level < 1:
            raise InvalidParameterError(
                f"the level of the quantile loss must lie in (0, 1), but got {level:g}"
            )
        return _quantile(level)
    raise InvalidParameterError(
        f"loss must be one of {', '.join(LOSSES)}, but got {name!r}{near_miss(kind, LOSSES)}"
    )


def _number(name: str, argument: str, default: float) -> float:
    """Parameter of a loss from its name, or ``default``."""
    try:
        return float(argument) if argument else default
    except ValueError:
        raise InvalidParameterError(f"loss must have a number behind its colon, but got {name!r}") from None
