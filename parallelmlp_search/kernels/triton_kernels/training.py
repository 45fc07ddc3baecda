"""Many training steps of many members in one launch: one program a member.

A program loads its member's weights once, and then, step after step, takes a minibatch from the rows on the
device, goes forward and backward, clips, and takes a step of AdamW or SGD. Members are independent, so
programs never wait for each other, and nothing but rows, targets and coefficients is read in between. With
``STREAM`` the moments of the hidden layers, which a large member cannot keep in registers, are read and written
at each step instead; while one member trains, they stay in the second-level cache.

Sizes are padded to powers of two of at least 16, as ``tl.dot`` wants; padding is masked and stays zero.
Written for Triton 3.2 to 3.9 and to be launched with ``num_stages=1``: nothing may be prefetched over a step,
since a step writes what the next one reads.
"""

from __future__ import annotations

import triton
import triton.language as tl

from parallelmlp_search.kernels.triton_kernels.elementwise import activation, loss_and_gradient

__all__ = ["PLAN_COLUMNS", "train_members"]

PLAN_COLUMNS = (
    "row", "batch_size", "first_step", "n_steps", "width_1", "width_2", "stride_2", "stride_3",
    "weight_1", "bias_1", "weight_2", "bias_2", "weight_3", "bias_3",
)  # fmt: skip
"""What ``plan`` says of each program: the member's stacked row, its minibatches, its true widths, the columns
of its later weights, and where its parameters begin in the flat buffers. Layer 3 is the head."""


@triton.jit
def _head(weight, activations, C_PAD: tl.constexpr, PRECISION: tl.constexpr):
    """``W a``: (C, H), (H, N) -> (C, N); few outputs are not worth the 16 that ``tl.dot`` wants."""
    if C_PAD < 16:
        outputs = tl.sum(weight[:, :, None] * activations[None, :, :], axis=1)
    else:
        outputs = tl.dot(weight, activations, input_precision=PRECISION, out_dtype=weight.dtype)
    return outputs


@triton.jit
def _head_weight_gradient(gradient, activations, C_PAD: tl.constexpr, PRECISION: tl.constexpr):
    """``dY a^T``: (C, N), (H, N) -> (C, H)."""
    if C_PAD < 16:
        result = tl.sum(gradient[:, None, :] * activations[None, :, :], axis=2)
    else:
        result = tl.dot(
            gradient, tl.trans(activations), input_precision=PRECISION, out_dtype=gradient.dtype
        )
    return result


@triton.jit
def _head_input_gradient(weight, gradient, C_PAD: tl.constexpr, PRECISION: tl.constexpr):
    """``W^T dY``: (C, H), (C, N) -> (H, N)."""
    if C_PAD < 16:
        result = tl.sum(weight[:, :, None] * gradient[:, None, :], axis=0)
    else:
        result = tl.dot(tl.trans(weight), gradient, input_precision=PRECISION, out_dtype=weight.dtype)
    return result


@triton.jit
def _adamw(p, g, m, v, mix_1, mix_2, keep, scale, offset):
    """One step of AdamW as in :mod:`parallelmlp_search.engine.optimizer`."""
    m = m + mix_1 * (g - m)
    v = v + mix_2 * (g * g - v)
    return p * keep - m / (scale * tl.sqrt(v) + offset), m, v


@triton.jit
def _sgd(p, g, m, v, momentum, decay, rate):
    """One step of SGD with momentum and coupled decay; ``v`` stays as it is."""
    m = momentum * m + (g + decay * p)
    return p - rate * m, m, v


@triton.jit
def _update(
    p, g, m, v, mix_1, mix_2, keep, scale, offset, momentum, decay, rate, ADAMW: tl.constexpr
):
    if ADAMW:
        p, m, v = _adamw(p, g, m, v, mix_1, mix_2, keep, scale, offset)
    else:
        p, m, v = _sgd(p, g, m, v, momentum, decay, rate)
    return p, m, v


@triton.jit
def _average(average, p, place, mask, share):
    """Move the running average towards the weights."""
    old = tl.load(average + place, mask=mask, other=0.0)
    tl.store(average + place, old + share * (p - old), mask=mask)


@triton.jit
def _keep(parameters, first, second, p, m, v, place, mask):
    """Write what was on chip back to memory."""
    tl.store(parameters + place, p, mask=mask)
    tl.store(first + place, m, mask=mask)
    tl.store(second + place, v, mask=mask)


@triton.jit
def _erase(parameters, first, second, average, place, mask):
    """A member whose loss stopped being finite ends as zeros."""
    tl.store(parameters + place, 0.0, mask=mask)
    tl.store(first + place, 0.0, mask=mask)
    tl.store(second + place, 0.0, mask=mask)
    tl.store(average + place, 0.0, mask=mask)


@triton.jit
def train_members(
    inputs, target, row_weight, order, plan, parameters, first, second, average,
    coefficients, shares, constants, loss_sums, failed_at,
    n_rows, n_inputs, n_outputs, n_members, first_position,
    PLAN: tl.constexpr, DEPTH: tl.constexpr, ACTIVATION: tl.constexpr, LOSS: tl.constexpr,
    ADAMW: tl.constexpr, BIAS: tl.constexpr, CLIP: tl.constexpr, WEIGHTED: tl.constexpr, STREAM: tl.constexpr,
    D_PAD: tl.constexpr, H1_PAD: tl.constexpr, H2_PAD: tl.constexpr, C_PAD: tl.constexpr,
    ROWS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Train one member of ``plan`` for its number of steps.

    Parameters
    ----------
    inputs, target, row_weight
        Training rows: (n, D); (n,) classes or 0/1, or (C, n) numbers; (n,), read only if ``WEIGHTED``.
    order
        Row number at each position of the stream of batches, from position ``first_position`` on, int32.
    plan
        (programs, PLAN) int64, see :data:`PLAN_COLUMNS`.
    parameters, first, second, average
        Flat buffers, updated in place.
    coefficients
        (steps, 4, P): learning rate, ``keep``, ``scale`` and ``offset`` of each step from the first on.
    shares
        (steps,): share of the new weights in their average, 0 where the average is left alone.
    constants
        (6, P): 1 - beta1, 1 - beta2, momentum, weight decay, largest gradient norm, label smoothing.
    loss_sums, failed_at
        (P,): the sum of the losses of all steps is added; the first step whose loss was not finite, or -1.
    """
    line = plan + tl.program_id(0) * PLAN
    row = tl.load(line)
    batch_size = tl.load(line + 1).to(tl.int32)
    first_step = tl.load(line + 2)
    n_steps = tl.load(line + 3).to(tl.int32)
    width_1 = tl.load(line + 4).to(tl.int32)
    width_2 = tl.load(line + 5).to(tl.int32)

    mix_1 = tl.load(constants + row)
    mix_2 = tl.load(constants + n_members + row)
    momentum = tl.load(constants + 2 * n_members + row)
    decay = tl.load(constants + 3 * n_members + row)
    largest_norm = tl.load(constants + 4 * n_members + row)
    smoothing = tl.load(constants + 5 * n_members + row)

    d = tl.arange(0, D_PAD)
    h1 = tl.arange(0, H1_PAD)
    c = tl.arange(0, C_PAD)
    in_1 = h1 < width_1
    in_c = c < n_outputs
    place_w1 = tl.load(line + 8) + h1[:, None] * n_inputs + d[None, :]
    mask_w1 = in_1[:, None] & (d < n_inputs)[None, :]
    w1 = tl.load(parameters + place_w1, mask=mask_w1, other=0.0)
    if not STREAM:
        m_w1 = tl.load(first + place_w1, mask=mask_w1, other=0.0)
        v_w1 = tl.load(second + place_w1, mask=mask_w1, other=0.0)
    if BIAS:
        place_b1 = tl.load(line + 9) + h1
        b1 = tl.load(parameters + place_b1, mask=in_1, other=0.0)
        m_b1 = tl.load(first + place_b1, mask=in_1, other=0.0)
        v_b1 = tl.load(second + place_b1, mask=in_1, other=0.0)
    if DEPTH == 2:
        h2 = tl.arange(0, H2_PAD)
        in_2 = h2 < width_2
        place_w2 = tl.load(line + 10) + h2[:, None] * tl.load(line + 6) + h1[None, :]
        mask_w2 = in_2[:, None] & in_1[None, :]
        w2 = tl.load(parameters + place_w2, mask=mask_w2, other=0.0)
        if not STREAM:
            m_w2 = tl.load(first + place_w2, mask=mask_w2, other=0.0)
            v_w2 = tl.load(second + place_w2, mask=mask_w2, other=0.0)
        if BIAS:
            place_b2 = tl.load(line + 11) + h2
            b2 = tl.load(parameters + place_b2, mask=in_2, other=0.0)
            m_b2 = tl.load(first + place_b2, mask=in_2, other=0.0)
            v_b2 = tl.load(second + place_b2, mask=in_2, other=0.0)
        h = h2
        in_h = in_2
        LAST: tl.constexpr = H2_PAD
    else:
        h = h1
        in_h = in_1
        LAST: tl.constexpr = H1_PAD
    place_w3 = tl.load(line + 12) + c[:, None] * tl.load(line + 7) + h[None, :]
    mask_w3 = in_c[:, None] & in_h[None, :]
    w3 = tl.load(parameters + place_w3, mask=mask_w3, other=0.0)
    m_w3 = tl.load(first + place_w3, mask=mask_w3, other=0.0)
    v_w3 = tl.load(second + place_w3, mask=mask_w3, other=0.0)
    if BIAS:
        place_b3 = tl.load(line + 13) + c
        b3 = tl.load(parameters + place_b3, mask=in_c, other=0.0)
        m_b3 = tl.load(first + place_b3, mask=in_c, other=0.0)
        v_b3 = tl.load(second + place_b3, mask=in_c, other=0.0)

    loss_sum = tl.load(loss_sums + row)
    failure = tl.load(failed_at + row)
    of_step = coefficients + row
    for step in range(n_steps):
        start = (first_step + step) * batch_size - first_position
        if WEIGHTED:
            weights = tl.zeros((ROWS,), w1.dtype)
            for tile in range(0, batch_size, ROWS):
                n = tile + tl.arange(0, ROWS)
                rows = tl.load(order + start + n, mask=n < batch_size, other=0)
                weights += tl.load(row_weight + rows, mask=n < batch_size, other=0.0)
            # as a whole batch of weight 0 has the loss 0
            total = tl.maximum(tl.sum(weights, axis=0), 1.1754943508222875e-38)

        g_w1 = tl.zeros((H1_PAD, D_PAD), w1.dtype)
        g_w3 = tl.zeros((C_PAD, LAST), w1.dtype)
        if BIAS:
            g_b1 = tl.zeros((H1_PAD,), w1.dtype)
            g_b3 = tl.zeros((C_PAD,), w1.dtype)
        if DEPTH == 2:
            g_w2 = tl.zeros((H2_PAD, H1_PAD), w1.dtype)
            if BIAS:
                g_b2 = tl.zeros((H2_PAD,), w1.dtype)
        losses = tl.zeros((ROWS,), w1.dtype)
        for tile in range(0, batch_size, ROWS):
            n = tile + tl.arange(0, ROWS)
            valid = n < batch_size
            rows = tl.load(order + start + n, mask=valid, other=0).to(tl.int64)
            x = tl.load(
                inputs + rows[:, None] * n_inputs + d[None, :],
                mask=valid[:, None] & (d < n_inputs)[None, :],
                other=0.0,
            )
            if WEIGHTED:
                share = tl.load(row_weight + rows, mask=valid, other=0.0) / total
            else:
                share = tl.where(valid, tl.zeros((ROWS,), w1.dtype) + 1.0, 0.0) / batch_size
            z = tl.dot(w1, tl.trans(x), input_precision=PRECISION, out_dtype=w1.dtype)
            if BIAS:
                z += b1[:, None]
            a1, slope_1 = activation(z, ACTIVATION)
            a1 = tl.where(in_1[:, None], a1, 0.0)
            if DEPTH == 2:
                z = tl.dot(w2, a1, input_precision=PRECISION, out_dtype=w1.dtype)
                if BIAS:
                    z += b2[:, None]
                a, slope = activation(z, ACTIVATION)
                a = tl.where(in_2[:, None], a, 0.0)
            else:
                a = a1
                slope = slope_1
            outputs = _head(w3, a, C_PAD, PRECISION)
            if BIAS:
                outputs += b3[:, None]
            tile_losses, g = loss_and_gradient(
                outputs, share, target, rows, valid, n_rows, n_outputs, smoothing, LOSS, C_PAD
            )
            losses += tile_losses
            g_w3 += _head_weight_gradient(g, a, C_PAD, PRECISION)
            if BIAS:
                g_b3 += tl.sum(g, axis=1)
            g = _head_input_gradient(w3, g, C_PAD, PRECISION) * slope
            if DEPTH == 2:
                g_w2 += tl.dot(g, tl.trans(a1), input_precision=PRECISION, out_dtype=w1.dtype)
                if BIAS:
                    g_b2 += tl.sum(g, axis=1)
                g = tl.dot(tl.trans(w2), g, input_precision=PRECISION, out_dtype=w1.dtype) * slope_1
            g_w1 += tl.dot(g, x, input_precision=PRECISION, out_dtype=w1.dtype)
            if BIAS:
                g_b1 += tl.sum(g, axis=1)

        loss = tl.sum(losses, axis=0)
        loss_sum += loss
        # false for nan as well
        finite = tl.abs(loss) < float("inf")
        failure = tl.where(finite | (failure >= 0), failure, first_step + step)
        if CLIP:
            squares = tl.sum(tl.sum(g_w1 * g_w1, axis=1), axis=0) + tl.sum(tl.sum(g_w3 * g_w3, axis=1), axis=0)
            if BIAS:
                squares += tl.sum(g_b1 * g_b1, axis=0) + tl.sum(g_b3 * g_b3, axis=0)
            if DEPTH == 2:
                squares += tl.sum(tl.sum(g_w2 * g_w2, axis=1), axis=0)
                if BIAS:
                    squares += tl.sum(g_b2 * g_b2, axis=0)
            factor = largest_norm / (tl.sqrt(squares) + 1e-6)
            factor = tl.where(factor < 1.0, factor, 1.0)
            g_w1 *= factor
            g_w3 *= factor
            if BIAS:
                g_b1 *= factor
                g_b3 *= factor
            if DEPTH == 2:
                g_w2 *= factor
                if BIAS:
                    g_b2 *= factor

        rate = tl.load(of_step)
        keep = tl.load(of_step + n_members)
        scale = tl.load(of_step + 2 * n_members)
        offset = tl.load(of_step + 3 * n_members)
        of_step += 4 * n_members
        average_share = tl.load(shares + step)
        if STREAM:
            m = tl.load(first + place_w1, mask=mask_w1, other=0.0)
            v = tl.load(second + place_w1, mask=mask_w1, other=0.0)
            w1, m, v = _update(
                w1, g_w1, m, v, mix_1, mix_2, keep, scale, offset, momentum, decay, rate, ADAMW
            )
            tl.store(first + place_w1, m, mask=mask_w1)
            tl.store(second + place_w1, v, mask=mask_w1)
            if DEPTH == 2:
                m = tl.load(first + place_w2, mask=mask_w2, other=0.0)
                v = tl.load(second + place_w2, mask=mask_w2, other=0.0)
                w2, m, v = _update(
                    w2, g_w2, m, v, mix_1, mix_2, keep, scale, offset, momentum, decay, rate, ADAMW
                )
                tl.store(first + place_w2, m, mask=mask_w2)
                tl.store(second + place_w2, v, mask=mask_w2)
        else:
            w1, m_w1, v_w1 = _update(
                w1, g_w1, m_w1, v_w1, mix_1, mix_2, keep, scale, offset, momentum, decay, rate, ADAMW
            )
            if DEPTH == 2:
                w2, m_w2, v_w2 = _update(
                    w2, g_w2, m_w2, v_w2, mix_1, mix_2, keep, scale, offset, momentum, decay, rate, ADAMW
                )
        w3, m_w3, v_w3 = _update(
            w3, g_w3, m_w3, v_w3, mix_1, mix_2, keep, scale, offset, momentum, decay, rate, ADAMW
        )
        if BIAS:
            # biases do not decay
            b1, m_b1, v_b1 = _update(
                b1, g_b1, m_b1, v_b1, mix_1, mix_2, 1.0, scale, offset, momentum, 0.0, rate, ADAMW
            )
            b3, m_b3, v_b3 = _update(
                b3, g_b3, m_b3, v_b3, mix_1, mix_2, 1.0, scale, offset, momentum, 0.0, rate, ADAMW
            )
            if DEPTH == 2:
                b2, m_b2, v_b2 = _update(
                    b2, g_b2, m_b2, v_b2, mix_1, mix_2, 1.0, scale, offset, momentum, 0.0, rate, ADAMW
                )
        if average_share > 0.0:
            _average(average, w1, place_w1, mask_w1, average_share)
            _average(average, w3, place_w3, mask_w3, average_share)
            if BIAS:
                _average(average, b1, place_b1, in_1, average_share)
                _average(average, b3, place_b3, in_c, average_share)
            if DEPTH == 2:
                _average(average, w2, place_w2, mask_w2, average_share)
                if BIAS:
                    _average(average, b2, place_b2, in_2, average_share)
        # what other threads wrote at this step is read at the next
        tl.debug_barrier()

    tl.store(loss_sums + row, loss_sum)
    tl.store(failed_at + row, failure)
    if failure >= 0:
        _erase(parameters, first, second, average, place_w1, mask_w1)
        _erase(parameters, first, second, average, place_w3, mask_w3)
        if BIAS:
            _erase(parameters, first, second, average, place_b1, in_1)
            _erase(parameters, first, second, average, place_b3, in_c)
        if DEPTH == 2:
            _erase(parameters, first, second, average, place_w2, mask_w2)
            if BIAS:
                _erase(parameters, first, second, average, place_b2, in_2)
    else:
        if STREAM:
            tl.store(parameters + place_w1, w1, mask=mask_w1)
            if DEPTH == 2:
                tl.store(parameters + place_w2, w2, mask=mask_w2)
        else:
            _keep(parameters, first, second, w1, m_w1, v_w1, place_w1, mask_w1)
            if DEPTH == 2:
                _keep(parameters, first, second, w2, m_w2, v_w2, place_w2, mask_w2)
        _keep(parameters, first, second, w3, m_w3, v_w3, place_w3, mask_w3)
        if BIAS:
            _keep(parameters, first, second, b1, m_b1, v_b1, place_b1, in_1)
            _keep(parameters, first, second, b3, m_b3, v_b3, place_b3, in_c)
            if DEPTH == 2:
                _keep(parameters, first, second, b2, m_b2, v_b2, place_b2, in_2)
