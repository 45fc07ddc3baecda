"""Activations with their derivatives and losses with their gradients, inside a kernel.

The formulas are those of :mod:`parallelmlp_search.kernels.activations` and
:mod:`parallelmlp_search.kernels.losses`. Names are compile-time constants, so that a kernel has no branches.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def log_one_plus(x):
    """``log(1 + x)`` for ``x >= 0``, accurate for tiny ``x``."""
    u = 1.0 + x
    # first-order correction of the rounding of 1 + x
    return tl.log(u) - ((u - 1.0) - x) / u


@triton.jit
def _sigmoid(x):
    """Sigmoid without overflow."""
    e = tl.exp(-tl.abs(x))
    return tl.where(x < 0.0, e, e * 0.0 + 1.0) / (1.0 + e)


@triton.jit
def activation(z, NAME: tl.constexpr):
    """Activation of ``z`` and its derivative."""
    one = tl.zeros_like(z) + 1.0  # in the dtype of z: a number in tl.where would be float32
    if NAME == "identity":
        a = z
        slope = one
    elif NAME == "sigmoid":
        a = _sigmoid(z)
        slope = a * (1.0 - a)
    elif NAME == "tanh":
        a = 2.0 * _sigmoid(2.0 * z) - 1.0
        slope = 1.0 - a * a
    elif NAME == "relu":
        # NaN stays NaN, so that a diverged member is detected
        a = tl.where(z <= 0.0, 0.0, z)
        slope = tl.where(z > 0.0, one, 0.0)
    elif NAME == "leaky_relu":
        a = tl.where(z > 0.0, z, 0.01 * z)
        slope = tl.where(z > 0.0, one, 0.01 * one)
    elif NAME == "elu":
        # clamped, since both branches are computed and neither may overflow
        e = tl.exp(tl.where(z > 0.0, 0.0, z))
        a = tl.where(z > 0.0, z, e - 1.0)
        slope = tl.where(z > 0.0, one, e)
    elif NAME == "selu":
        e = 1.6732632423543772848170429916717 * tl.exp(tl.where(z > 0.0, 0.0, z))
        a = 1.0507009873554804934193349852946 * tl.where(z > 0.0, z, e - 1.6732632423543772848170429916717)
        slope = 1.0507009873554804934193349852946 * tl.where(z > 0.0, one, e)
    elif NAME == "gelu":
        share = 0.5 * (1.0 + tl.erf(z * 0.70710678118654752440))
        a = z * share
        slope = share + z * 0.39894228040143267794 * tl.exp(-0.5 * z * z)
    elif NAME == "silu":
        s = _sigmoid(z)
        a = z * s
        slope = s * (1.0 + z * (1.0 - s))
    elif NAME == "mish":
        # tanh(softplus(z)) = t / (1 + t) with t = e + e^2 / 2; above 20 it is 1
        e = tl.exp(tl.where(z > 20.0, 20.0, z))
        t = e + 0.5 * e * e
        d = 1.0 + t
        share = t / d
        a = z * share
        slope = share + z * (e + e * e) / (d * d)
    elif NAME == "hardshrink":
        inside = (z >= -0.5) & (z <= 0.5)
        a = tl.where(inside, 0.0, z)
        slope = tl.where(inside, 0.0, one)
    elif NAME == "softplus":
        e = tl.exp(tl.where(z > 20.0, 20.0, z))
        a = tl.where(z > 20.0, z, log_one_plus(e))
        slope = tl.where(z > 20.0, one, e / (1.0 + e))
    else:
        tl.static_assert(NAME == "sine", "no such activation")
        a = tl.sin(z)
        slope = tl.cos(z)
    return a, slope


@triton.jit
def any_activation(z, code):
    """Activation by its index in :data:`parallelmlp_search.space.ACTIVATIONS`, with one branch per tile.

    Members with different activations then share a launch, and a kernel, which takes seconds to compile.
    """
    if code == 0:
        a, slope = activation(z, "identity")
    elif code == 1:
        a, slope = activation(z, "sigmoid")
    elif code == 2:
        a, slope = activation(z, "tanh")
    elif code == 3:
        a, slope = activation(z, "relu")
    elif code == 4:
        a, slope = activation(z, "leaky_relu")
    elif code == 5:
        a, slope = activation(z, "elu")
    elif code == 6:
        a, slope = activation(z, "gelu")
    elif code == 7:
        a, slope = activation(z, "selu")
    elif code == 8:
        a, slope = activation(z, "hardshrink")
    elif code == 9:
        a, slope = activation(z, "mish")
    elif code == 10:
        a, slope = activation(z, "silu")
    elif code == 11:
        a, slope = activation(z, "softplus")
    else:
        a, slope = activation(z, "sine")
    return a, slope


@triton.jit
def loss_and_gradient(
    outputs, share, target, rows, valid, n_rows, n_outputs, smoothing, LOSS: tl.constexpr, C_PAD: tl.constexpr
):
    """Losses of the rows of a tile times their shares, and the gradient by the outputs.

    ``outputs`` is (C_PAD, N), ``share`` (N,) is 0 for invalid rows, and ``rows`` (N,) are row numbers of
    ``target`` (n,) of classes, or (C, n). The gradient of padded outputs is 0.
    """
    c = tl.arange(0, C_PAD)
    is_output = (c < n_outputs)[:, None]
    if LOSS == "cross_entropy":
        wanted = tl.load(target + rows, mask=valid, other=0)
        is_class = c[:, None] == wanted[None, :]
        shifted = tl.where(is_output, outputs, -float("inf"))
        shifted = shifted - tl.max(shifted, axis=0)[None, :]
        e = tl.exp(shifted)
        total = tl.sum(e, axis=0)[None, :]
        log_probability = tl.where(is_output, shifted - tl.log(total), 0.0)
        spread = smoothing / n_outputs
        target_share = tl.where(is_class, 1.0 - smoothing, 0.0) + spread
        losses = -tl.sum(target_share * log_probability, axis=0) * share
        gradient = tl.where(is_output, e / total - target_share, 0.0) * share[None, :]
    elif LOSS == "binary_logits":
        place = c[:, None].to(tl.int64) * n_rows + rows[None, :]
        wanted = tl.load(target + place, mask=is_output & valid[None, :], other=0).to(outputs.dtype)
        wanted = wanted + smoothing * (0.5 - wanted)
        share = share / n_outputs
        gradient = tl.where(is_output, _sigmoid(outputs) - wanted, 0.0) * share[None, :]
        above = tl.where(outputs > 0.0, outputs, 0.0)
        values = above - outputs * wanted + log_one_plus(tl.exp(-tl.abs(outputs)))
        losses = tl.sum(tl.where(is_output, values, 0.0), axis=0) * share
    else:
        tl.static_assert(LOSS == "squared_error", "no such loss")
        place = c[:, None].to(tl.int64) * n_rows + rows[None, :]
        wanted = tl.load(target + place, mask=is_output & valid[None, :], other=0.0)
        residual = tl.where(is_output, outputs - wanted, 0.0)
        losses = tl.sum(residual * residual, axis=0) * share / n_outputs
        gradient = 2.0 * residual * share[None, :] / n_outputs
    return losses, gradient
