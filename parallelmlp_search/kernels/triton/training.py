"""Persistent kernel: many training steps of many members in one launch, with one program per member.

A program loads the weights of its member once. At each step it reads a minibatch, runs the forward and
backward pass, clips the gradient, and updates the weights with AdamW or SGD. Members are independent, so
programs do not wait for each other. With ``STREAM`` the moments and averages of the hidden layers, which a
large member cannot keep in registers, are loaded and stored at each step; they stay in the L2 cache.

Sizes are padded to powers of two of at least 16, as ``tl.dot`` requires; padding is masked and stays zero.
The kernel supports Triton 3.2 to 3.9. Launch it with ``num_stages=1``: a step reads what the previous step
wrote, so nothing may be prefetched.
"""

from __future__ import annotations

import triton
import triton.language as tl

from parallelmlp_search.kernels.triton.elementwise import activation, any_activation, loss_and_gradient
from parallelmlp_search.kernels.triton.member_parts import (
    fetch,
    head_input_gradient,
    head_outputs,
    head_weight_gradient,
    put,
    spread,
    streamed_update,
    update,
)

PLAN_COLUMNS = (
    "row", "batch_size", "first_step", "n_steps", "width_1", "width_2", "stride_2", "stride_3",
    "weight_1", "bias_1", "weight_2", "bias_2", "weight_3", "bias_3", "zero",
    "activation", "start",
)  # fmt: skip
"""Columns of ``plan``, one row per program: stacked row of the member, its minibatches, true widths, columns
of its later weights, starts of its parameters in the flat buffers, a 0, index of the activation, and position
of its first row in ``order``. Layer 3 is the head."""


# a kernel serves any numbers of rows and members
@triton.jit(do_not_specialize=["n_rows", "n_members"])
def train_members(
    inputs, target, row_weight, order, plan, parameters, first, second, average,
    coefficients, shares, constants, loss_sums, failed_at, scratch,
    n_rows, n_members,
    D: tl.constexpr, C: tl.constexpr, PLAN: tl.constexpr,
    DEPTH: tl.constexpr, ACTIVATION: tl.constexpr, LOSS: tl.constexpr,
    ADAMW: tl.constexpr, BIAS: tl.constexpr, CLIP: tl.constexpr, WEIGHTED: tl.constexpr, STREAM: tl.constexpr,
    D_PAD: tl.constexpr, H1_PAD: tl.constexpr, H2_PAD: tl.constexpr, C_PAD: tl.constexpr,
    ROWS: tl.constexpr, SCRATCH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Train one member of ``plan``.

    Parameters
    ----------
    inputs, target, row_weight
        Training rows: (n, D); (n,) classes or 0/1, or (C, n) numbers; (n,), read only if ``WEIGHTED``.
    order
        int32: row numbers of the batches, one batch after the other.
    plan
        (programs, PLAN) int64: see :data:`PLAN_COLUMNS`.
    parameters, first, second, average
        Flat buffers, updated in place.
    coefficients
        (steps, 4, P): learning rate, ``keep`` (for SGD the decay), ``scale`` and ``offset`` of each step.
    shares
        (steps,): share of the new weights in their average, 0 for no update.
    constants
        (5, P): 1 - beta1, 1 - beta2, momentum, largest gradient norm, label smoothing.
    loss_sums, failed_at
        (P,): sum of the losses, which is increased; first step whose loss was not finite, or -1.
    scratch
        (programs, 3, SCRATCH) if ``STREAM``: padded moments and averages of the hidden weights.
    """
    line = plan + tl.program_id(0) * PLAN
    row = tl.load(line)
    batch_size = tl.load(line + 1).to(tl.int32)
    first_step = tl.load(line + 2)
    n_steps = tl.load(line + 3).to(tl.int32)
    width_1 = tl.load(line + 4).to(tl.int32)
    width_2 = tl.load(line + 5).to(tl.int32)
    code = tl.load(line + 15).to(tl.int32)
    first_row = tl.load(line + 16)

    mix_1 = tl.load(constants + row)
    mix_2 = tl.load(constants + n_members + row)
    momentum = tl.load(constants + 2 * n_members + row)
    largest_norm = tl.load(constants + 3 * n_members + row)
    smoothing = tl.load(constants + 4 * n_members + row)

    d = tl.arange(0, D_PAD)
    h1 = tl.arange(0, H1_PAD)
    c = tl.arange(0, C_PAD)
    in_1 = h1 < width_1
    in_c = c < C
    place = tl.load(line + 8) + h1[:, None] * D + d[None, :]
    mask = in_1[:, None] & (d < D)[None, :]
    w1, m_w1, v_w1, a_w1 = fetch(parameters, first, second, average, place, mask)
    if STREAM:
        own = scratch + tl.program_id(0).to(tl.int64) * 3 * SCRATCH
        inside_1 = h1[:, None] * D_PAD + d[None, :]
        spread(own, m_w1, v_w1, a_w1, inside_1, SCRATCH)
    if BIAS:
        b1, m_b1, v_b1, a_b1 = fetch(parameters, first, second, average, tl.load(line + 9) + h1, in_1)
    if DEPTH == 2:
        h2 = tl.arange(0, H2_PAD)
        in_2 = h2 < width_2
        place = tl.load(line + 10) + h2[:, None] * tl.load(line + 6) + h1[None, :]
        mask = in_2[:, None] & in_1[None, :]
        w2, m_w2, v_w2, a_w2 = fetch(parameters, first, second, average, place, mask)
        if STREAM:
            inside_2 = H1_PAD * D_PAD + h2[:, None] * H1_PAD + h1[None, :]
            spread(own, m_w2, v_w2, a_w2, inside_2, SCRATCH)
        if BIAS:
            b2, m_b2, v_b2, a_b2 = fetch(parameters, first, second, average, tl.load(line + 11) + h2, in_2)
        h = h2
        in_h = in_2
        LAST: tl.constexpr = H2_PAD
    else:
        h = h1
        in_h = in_1
        LAST: tl.constexpr = H1_PAD
    place = tl.load(line + 12) + c[:, None] * tl.load(line + 7) + h[None, :]
    mask = in_c[:, None] & in_h[None, :]
    w3, m_w3, v_w3, a_w3 = fetch(parameters, first, second, average, place, mask)
    if BIAS:
        b3, m_b3, v_b3, a_b3 = fetch(parameters, first, second, average, tl.load(line + 13) + c, in_c)
    if STREAM:
        tl.debug_barrier()

    loss_sum = tl.load(loss_sums + row)
    failure = tl.load(failed_at + row)
    of_step = coefficients + row
    for step in range(n_steps):
        start = first_row + step * batch_size
        if WEIGHTED:
            weights = tl.zeros((ROWS,), w1.dtype)
            for tile in range(0, batch_size, ROWS):
                n = tile + tl.arange(0, ROWS)
                rows = tl.load(order + start + n, mask=n < batch_size, other=0)
                weights += tl.load(row_weight + rows, mask=n < batch_size, other=0.0)
            # a batch of zero weights has the loss 0
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
                inputs + rows[:, None] * D + d[None, :],
                mask=valid[:, None] & (d < D)[None, :],
                other=0.0,
            )
            if WEIGHTED:
                share = tl.load(row_weight + rows, mask=valid, other=0.0) / total
            else:
                share = tl.where(valid, tl.zeros((ROWS,), w1.dtype) + 1.0, 0.0) / batch_size
            z = tl.dot(w1, tl.trans(x), input_precision=PRECISION, out_dtype=w1.dtype)
            if BIAS:
                z += b1[:, None]
            if ACTIVATION == "any":
                a1, slope_1 = any_activation(z, code)
            else:
                a1, slope_1 = activation(z, ACTIVATION)
            a1 = tl.where(in_1[:, None], a1, 0.0)
            if DEPTH == 2:
                z = tl.dot(w2, a1, input_precision=PRECISION, out_dtype=w1.dtype)
                if BIAS:
                    z += b2[:, None]
                if ACTIVATION == "any":
                    a, slope = any_activation(z, code)
                else:
                    a, slope = activation(z, ACTIVATION)
                a = tl.where(in_2[:, None], a, 0.0)
            else:
                a = a1
                slope = slope_1
            outputs = head_outputs(w3, a, C_PAD, PRECISION)
            if BIAS:
                outputs += b3[:, None]
            tile_losses, g = loss_and_gradient(
                outputs, share, target, rows, valid, n_rows, C, smoothing, LOSS, C_PAD
            )
            losses += tile_losses
            g_w3 += head_weight_gradient(g, a, C_PAD, PRECISION)
            if BIAS:
                g_b3 += tl.sum(g, axis=1)
            g = head_input_gradient(w3, g, C_PAD, PRECISION) * slope
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
        # false for NaN
        finite = tl.abs(loss) < float("inf")
        failure = tl.where(finite | (failure >= 0), failure, first_step + step)
        if CLIP:
            squares = tl.sum(tl.sum(g_w1 * g_w1, axis=1), axis=0) + tl.sum(
                tl.sum(g_w3 * g_w3, axis=1), axis=0
            )
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
        share = tl.load(shares + step)
        if STREAM:
            w1 = streamed_update(
                own, inside_1, w1, g_w1, share,
                mix_1, mix_2, keep, scale, offset, momentum, keep, rate, ADAMW, SCRATCH,
            )  # fmt: skip
            if DEPTH == 2:
                w2 = streamed_update(
                    own, inside_2, w2, g_w2, share,
                    mix_1, mix_2, keep, scale, offset, momentum, keep, rate, ADAMW, SCRATCH,
                )  # fmt: skip
        else:
            w1, m_w1, v_w1 = update(
                w1, g_w1, m_w1, v_w1, mix_1, mix_2, keep, scale, offset, momentum, keep, rate, ADAMW
            )
            a_w1 += share * (w1 - a_w1)
            if DEPTH == 2:
                w2, m_w2, v_w2 = update(
                    w2, g_w2, m_w2, v_w2, mix_1, mix_2, keep, scale, offset, momentum, keep, rate, ADAMW
                )
                a_w2 += share * (w2 - a_w2)
        w3, m_w3, v_w3 = update(
            w3, g_w3, m_w3, v_w3, mix_1, mix_2, keep, scale, offset, momentum, keep, rate, ADAMW
        )
        a_w3 += share * (w3 - a_w3)
        if BIAS:
            # biases do not decay
            b1, m_b1, v_b1 = update(
                b1, g_b1, m_b1, v_b1, mix_1, mix_2, 1.0, scale, offset, momentum, 0.0, rate, ADAMW
            )
            a_b1 += share * (b1 - a_b1)
            b3, m_b3, v_b3 = update(
                b3, g_b3, m_b3, v_b3, mix_1, mix_2, 1.0, scale, offset, momentum, 0.0, rate, ADAMW
            )
            a_b3 += share * (b3 - a_b3)
            if DEPTH == 2:
                b2, m_b2, v_b2 = update(
                    b2, g_b2, m_b2, v_b2, mix_1, mix_2, 1.0, scale, offset, momentum, 0.0, rate, ADAMW
                )
                a_b2 += share * (b2 - a_b2)
        if STREAM:
            # other threads read at the next step what this thread wrote
            tl.debug_barrier()

    tl.store(loss_sums + row, loss_sum)
    tl.store(failed_at + row, failure)
    alive = failure < 0
    # always 0, which the compiler does not know: otherwise it would keep all addresses in registers from the
    # start, two per weight, and spill the weights
    zero = tl.load(line + 14).to(tl.int32)
    d = tl.arange(0, D_PAD) + zero
    h1 = tl.arange(0, H1_PAD) + zero
    c = tl.arange(0, C_PAD) + zero
    in_1 = h1 < width_1
    in_c = c < C
    if STREAM:
        inside_1 = h1[:, None] * D_PAD + d[None, :]
        m_w1 = tl.load(own + inside_1)
        v_w1 = tl.load(own + SCRATCH + inside_1)
        a_w1 = tl.load(own + 2 * SCRATCH + inside_1)
    place = tl.load(line + 8) + h1[:, None] * D + d[None, :]
    mask = in_1[:, None] & (d < D)[None, :]
    put(parameters, first, second, average, w1, m_w1, v_w1, a_w1, place, mask, alive)
    if BIAS:
        put(parameters, first, second, average, b1, m_b1, v_b1, a_b1, tl.load(line + 9) + h1, in_1, alive)
    if DEPTH == 2:
        h = tl.arange(0, H2_PAD) + zero
        in_h = h < width_2
        if STREAM:
            inside_2 = H1_PAD * D_PAD + h[:, None] * H1_PAD + h1[None, :]
            m_w2 = tl.load(own + inside_2)
            v_w2 = tl.load(own + SCRATCH + inside_2)
            a_w2 = tl.load(own + 2 * SCRATCH + inside_2)
        place = tl.load(line + 10) + h[:, None] * tl.load(line + 6) + h1[None, :]
        mask = in_h[:, None] & in_1[None, :]
        put(parameters, first, second, average, w2, m_w2, v_w2, a_w2, place, mask, alive)
        if BIAS:
            put(parameters, first, second, average, b2, m_b2, v_b2, a_b2, tl.load(line + 11) + h, in_h, alive)
    else:
        h = h1
        in_h = in_1
    place = tl.load(line + 12) + c[:, None] * tl.load(line + 7) + h[None, :]
    mask = in_c[:, None] & in_h[None, :]
    put(parameters, first, second, average, w3, m_w3, v_w3, a_w3, place, mask, alive)
    if BIAS:
        put(parameters, first, second, average, b3, m_b3, v_b3, a_b3, tl.load(line + 13) + c, in_c, alive)
