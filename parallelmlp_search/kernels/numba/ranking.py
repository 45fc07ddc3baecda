"""Area under the ROC curve of one member after the other, by a radix sort of its scores.

A sort by comparisons and the passes of tensor operations after it took 53 ns per score on one core.
"""

from __future__ import annotations

from parallelmlp_search.kernels.numba.arguments import DIGIT_BITS, N_DIGITS, RankedRows
from parallelmlp_search.kernels.numba.decorators import inlined
from parallelmlp_search.kernels.numba.pointers import as_integers, as_words, unpacker

_ranked_rows = unpacker(RankedRows)

LOW_32 = (1 << 32) - 1
SIGN = 1 << 31


def ranked_areas(arguments):
    """Sum the weights of all pairs in which the positive row scores higher; a tie counts one half."""
    rows = _ranked_rows(as_integers(arguments))
    n_rows, n_values = rows.n_rows, 1 << DIGIT_BITS
    first, second, counts = rows.scratch, rows.scratch + n_rows, rows.scratch + 2 * n_rows
    for p in range(rows.n_members):
        _count_digits(as_words(rows.scores + p * n_rows), first, counts, n_rows)
        for digit in range(N_DIGITS):
            _distribute(first, second, counts + digit * n_values, n_rows, digit)
            first, second = second, first
        rows.areas[p] = _area(first, rows.weights, n_rows)
    return 0


@inlined
def _digit(key, digit):
    """Digit of a key, the lowest first. The last one repeats the highest bit, which keeps the order."""
    return (key >> (32 + digit * DIGIT_BITS)) & ((1 << DIGIT_BITS) - 1)


@inlined
def _count_digits(words, keys, counts, n_rows):
    """Write keys with the order of the scores and the number of the row, and count their digits."""
    n_values = 1 << DIGIT_BITS
    for k in range(N_DIGITS * n_values):
        counts[k] = 0
    for n in range(n_rows):
        bits = words[n] & LOW_32
        if bits == SIGN:
            bits = 0  # negative zero equals zero
        # negative numbers have the opposite order of their bits
        key = (bits ^ LOW_32) if bits & SIGN else (bits | SIGN)
        keys[n] = (key << 32) | n
        for digit in range(N_DIGITS):
            counts[digit * n_values + _digit(keys[n], digit)] += 1


@inlined
def _distribute(source, target, counts, n_rows, digit):
    """Sort keys by one digit, and keep the order of equal ones."""
    n_values, total = 1 << DIGIT_BITS, 0
    for value in range(n_values):
        count = counts[value]
        counts[value] = total
        total += count
    for n in range(n_rows):
        value = _digit(source[n], digit)
        target[counts[value]] = source[n]
        counts[value] += 1


@inlined
def _area(keys, weights, n_rows):
    """Weight of the pairs in the right order, from sorted keys."""
    below, area, n = 0.0, 0.0, 0
    while n < n_rows:
        key, positive, negative = keys[n] >> 32, 0.0, 0.0
        while n < n_rows and keys[n] >> 32 == key:
            weight = weights[keys[n] & LOW_32]
            if weight > 0.0:
                positive += weight
            else:
                negative -= weight
            n += 1
        area += positive * (below + 0.5 * negative)
        below += negative
    return area
