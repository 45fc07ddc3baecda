"""Parts of the persistent kernel: products of the head, optimizer steps, loads and stores."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def head_outputs(weight, activations, C_PAD: tl.constexpr, PRECISION: tl.constexpr):
    """``W a``: (C, H), (H, N) -> (C, N). One output is summed: ``tl.dot`` needs at least 16."""
    if C_PAD == 1:
        outputs = tl.sum(tl.sum(weight, axis=0)[:, None] * activations, axis=0)[None, :]
    else:
        outputs = tl.dot(weight, activations, input_precision=PRECISION, out_dtype=weight.dtype)
    return outputs


@triton.jit
def head_weight_gradient(gradient, activations, C_PAD: tl.constexpr, PRECISION: tl.constexpr):
    """``dY a^T``: (C, N), (H, N) -> (C, H)."""
    if C_PAD == 1:
        result = tl.sum(gradient * activations, axis=1)[None, :]
    else:
        result = tl.dot(gradient, tl.trans(activations), input_precision=PRECISION, out_dtype=gradient.dtype)
    return result


@triton.jit
def head_input_gradient(weight, gradient, C_PAD: tl.constexpr, PRECISION: tl.constexpr):
    """``W^T dY``: (C, H), (C, N) -> (H, N)."""
    if C_PAD == 1:
        result = tl.sum(weight, axis=0)[:, None] * gradient
    else:
        result = tl.dot(tl.trans(weight), gradient, input_precision=PRECISION, out_dtype=weight.dtype)
    return result


@triton.jit
def adamw(p, g, m, v, mix_1, mix_2, keep, scale, offset):
    """Step of AdamW as in :mod:`parallelmlp_search.engine.optimizer`."""
    m = m + mix_1 * (g - m)
    v = v + mix_2 * (g * g - v)
    return p * keep - m / (scale * tl.sqrt(v) + offset), m, v


@triton.jit
def sgd(p, g, m, v, momentum, decay, rate):
    """Step of SGD with momentum and coupled decay; ``v`` is unchanged."""
    m = momentum * m + (g + decay * p)
    return p - rate * m, m, v


@triton.jit
def update(p, g, m, v, mix_1, mix_2, keep, scale, offset, momentum, decay, rate, ADAMW: tl.constexpr):
    """Step of AdamW or SGD: new weights and moments."""
    if ADAMW:
        p, m, v = adamw(p, g, m, v, mix_1, mix_2, keep, scale, offset)
    else:
        p, m, v = sgd(p, g, m, v, momentum, decay, rate)
    return p, m, v


@triton.jit
def fetch(parameters, first, second, average, place, mask):
    """Load weights, moments and average of one tensor of a member."""
    p = tl.load(parameters + place, mask=mask, other=0.0)
    m = tl.load(first + place, mask=mask, other=0.0)
    v = tl.load(second + place, mask=mask, other=0.0)
    a = tl.load(average + place, mask=mask, other=0.0)
    return p, m, v, a


@triton.jit
def put(parameters, first, second, average, p, m, v, a, place, mask, alive):
    """Store weights, moments and average; zeros for a member whose loss was not finite."""
    tl.store(parameters + place, tl.where(alive, p, 0.0), mask=mask)
    tl.store(first + place, tl.where(alive, m, 0.0), mask=mask)
    tl.store(second + place, tl.where(alive, v, 0.0), mask=mask)
    tl.store(average + place, tl.where(alive, a, 0.0), mask=mask)


@triton.jit
def spread(scratch, m, v, a, inside, SIZE: tl.constexpr):
    """Store moments and average in a member's padded scratch, so that steps need no mask."""
    tl.store(scratch + inside, m)
    tl.store(scratch + SIZE + inside, v)
    tl.store(scratch + 2 * SIZE + inside, a)


@triton.jit
def streamed_update(
    scratch, inside, p, g, share,
    mix_1, mix_2, keep, scale, offset, momentum, decay, rate,
    ADAMW: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """Step of a tensor whose moments and average are in the scratch."""
    m = tl.load(scratch + inside)
    v = tl.load(scratch + SIZE + inside)
    p, m, v = update(p, g, m, v, mix_1, mix_2, keep, scale, offset, momentum, decay, rate, ADAMW)
    tl.store(scratch + inside, m)
    tl.store(scratch + SIZE + inside, v)
    if share > 0.0:
        a = tl.load(scratch + 2 * SIZE + inside)
        tl.store(scratch + 2 * SIZE + inside, a + share * (p - a))
    return p
