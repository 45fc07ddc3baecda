"""Optimizer step of all members in one launch, over the flat buffers.

With torch's operations a step moves 18 words per parameter, here seven, or nine if the average is updated. A
program updates a stretch of one block and finds the member of each element by division.
"""

from __future__ import annotations

import triton
import triton.language as tl

from parallelmlp_search.kernels.triton.member_parts import update


# a kernel serves any number of members
@triton.jit(do_not_specialize=["n_members"])
def flat_step(
    parameters, gradients, first, second, average, stretches, factors, coefficients, shares, local, constants,
    n_members, ADAMW: tl.constexpr, AVERAGING: tl.constexpr, FACTORED: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """Update the elements of one stretch.

    ``stretches`` (programs, 7) int64 holds the start of the block in the flat buffers, the first element of
    the stretch inside the block, the sizes of the block and of one member, the first stacked row of the
    block, 1 if weight decay applies, and the start of the factors of its members. ``coefficients``
    (steps, 4, P) and ``shares`` (steps,) are read at step ``local``. With ``FACTORED`` they are multiplied by
    the factors of rate, decay and epsilon, (3, P_b) for each group of blocks.
    """
    line = stretches + tl.program_id(0) * 7
    inside = tl.load(line + 1) + tl.arange(0, SIZE)
    mask = inside < tl.load(line + 2)
    place = tl.load(line) + inside
    member = inside // tl.load(line + 3)
    row = tl.load(line + 4) + member
    decays = tl.load(line + 5) != 0
    step = tl.load(local)
    of_step = coefficients + step * 4 * n_members + row
    p = tl.load(parameters + place, mask=mask, other=0.0)
    g = tl.load(gradients + place, mask=mask, other=0.0)
    m = tl.load(first + place, mask=mask, other=0.0)
    rate = tl.load(of_step, mask=mask, other=0.0)
    keep = tl.load(of_step + n_members, mask=mask, other=0.0)
    if FACTORED:
        own = factors + tl.load(line + 6) + member
        n_own = tl.load(line + 2) // tl.load(line + 3)
        rate_factor = tl.load(own, mask=mask, other=1.0)
        decay_factor = tl.load(own + n_own, mask=mask, other=1.0)
        rate *= rate_factor
    if ADAMW:
        v = tl.load(second + place, mask=mask, other=0.0)
        scale = tl.load(of_step + 2 * n_members, mask=mask, other=1.0)
        offset = tl.load(of_step + 3 * n_members, mask=mask, other=1.0)
        if FACTORED:
            keep = 1.0 - decay_factor * (1.0 - keep)
            scale /= rate_factor
            offset /= tl.load(own + 2 * n_own, mask=mask, other=1.0)
        mix_1 = tl.load(constants + row, mask=mask, other=0.0)
        mix_2 = tl.load(constants + n_members + row, mask=mask, other=0.0)
        keep = tl.where(decays, keep, keep * 0.0 + 1.0)
        p, m, v = update(p, g, m, v, mix_1, mix_2, keep, scale, offset, 0.0, 0.0, rate, ADAMW)
        tl.store(second + place, v, mask=mask)
    else:
        momentum = tl.load(constants + 2 * n_members + row, mask=mask, other=0.0)
        if FACTORED:
            keep *= decay_factor
        keep = tl.where(decays, keep, keep * 0.0)
        p, m, _ = update(p, g, m, m, 0.0, 0.0, 1.0, 1.0, 1.0, momentum, keep, rate, ADAMW)
    tl.store(first + place, m, mask=mask)
    tl.store(parameters + place, p, mask=mask)
    if AVERAGING:
        share = tl.load(shares + step)
        a = tl.load(average + place, mask=mask, other=0.0)
        tl.store(average + place, a + share * (p - a), mask=mask)
