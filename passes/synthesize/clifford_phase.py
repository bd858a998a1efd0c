"""The global phase of a Clifford circuit, which its tableau does not tell.

One amplitude is followed: ``phase = <x|psi>`` up to its size, for a basis state x of the support,
beside the stabilizers of psi. S and CX turn or move it; H needs the ratio of the amplitudes at x
and at x with one bit flipped, which is told by the stabilizer that flips just this bit, if any.

Source: Aaronson, Gottesman 2004 (arXiv:quant-ph/0406196), section III; Bravyi et al. 2019
(arXiv:1808.00128), section 4.1, for the need of it.
"""

from __future__ import annotations

from typing import Any

from qcomp.kernels import kernel
from qcomp.passes.synthesize.parity_frame import ones

__all__ = ["CX", "H", "S", "SDG", "X", "Z", "clifford_phase"]

H, CX, SDG, X, Z, S = range(6)
"""Kinds of gates."""


def _flipping(q: int, m: int, sx: Any, sz: Any, minus: Any, rx: Any, rz: Any, rm: Any) -> int:
    """Row of the stabilizer that flips wire q alone, after elimination in rx, rz, rm; -1 none."""
    for i in range(m):
        rx[i] = sx[i]
        rz[i] = sz[i]
        rm[i] = minus[i]
    done = 0
    for w in range(m):
        if w == q:
            continue
        at = done
        while at < m and (rx[at] >> w) & 1 == 0:
            at += 1
        if at == m:
            continue
        x = rx[at]
        z = rz[at]
        s = rm[at]
        rx[at] = rx[done]
        rz[at] = rz[done]
        rm[at] = rm[done]
        rx[done] = x
        rz[done] = z
        rm[done] = s
        done += 1
        for i in range(done, m):
            if (rx[i] >> w) & 1:
                power = ones(x & z) + ones(rx[i] & rz[i]) + 2 * ones(z & rx[i]) + 2 * (s + rm[i])
                rx[i] ^= x
                rz[i] ^= z
                rm[i] = ((power - ones(rx[i] & rz[i])) >> 1) & 1
    for i in range(done, m):
        if rx[i] != 0:
            return i
    return -1


@kernel(calls=(ones, _flipping))
def clifford_phase(
    n: int,
    m: int,
    kind: Any,
    first: Any,
    second: Any,
    sx: Any,
    sz: Any,
    minus: Any,
    rx: Any,
    rz: Any,
    rm: Any,
) -> int:
    """Phase of ``<0|U|0>`` in eighths of a turn, for a circuit U that maps all zeros to itself.

    n gates on at most 62 wires: kind[n], first[n], second[n]. sx, sz, minus, rx, rz, rm: int64[m],
    work space, of any content. Where U does not map all zeros to itself the result is the phase of
    one of the amplitudes.
    """
    for i in range(m):
        sx[i] = 0
        sz[i] = 1 << i
        minus[i] = 0
    x = 0
    phase = 0
    for i in range(n):
        a = first[i]
        bit = (x >> a) & 1
        if kind[i] == X:
            x ^= 1 << a
            for j in range(m):
                minus[j] ^= (sz[j] >> a) & 1
        elif kind[i] == Z:
            phase += 4 * bit
            for j in range(m):
                minus[j] ^= (sx[j] >> a) & 1
        elif kind[i] == S or kind[i] == SDG:
            phase += (2 if kind[i] == S else 6) * bit
            turn = 1 if kind[i] == S else 0
            for j in range(m):
                if (sx[j] >> a) & 1:
                    # S: X to Y, Y to -X.
                    if (sz[j] >> a) & 1 == turn:
                        minus[j] ^= 1
                    sz[j] ^= 1 << a
        elif kind[i] == CX:
            b = second[i]
            x ^= bit << b
            for j in range(m):
                c = (sx[j] >> a) & 1
                t = (sz[j] >> b) & 1
                minus[j] ^= c & t & (1 ^ ((sx[j] >> b) & 1) ^ ((sz[j] >> a) & 1))
                sx[j] ^= c << b
                sz[j] ^= t << a
        else:
            at = _flipping(a, m, sx, sz, minus, rx, rz, rm)
            if at < 0:
                phase += 4 * bit
            else:
                # The stabilizer takes |x> to i^power |x with the bit flipped>.
                power = 2 * rm[at] + 2 * ones(rz[at] & (x ^ (bit << a)))
                if (rz[at] >> a) & 1:
                    power += 3 if bit else 1
                power &= 3
                if power & 1:
                    phase += power if power == 1 else 7
                    x ^= bit << a
                elif power == 0:
                    x ^= bit << a
                else:
                    phase += 4 * bit
                    x ^= (1 ^ bit) << a
            for j in range(m):
                c = (sx[j] >> a) & 1
                t = (sz[j] >> a) & 1
                minus[j] ^= c & t
                sx[j] ^= (c ^ t) << a
                sz[j] ^= (c ^ t) << a
    return phase & 7
