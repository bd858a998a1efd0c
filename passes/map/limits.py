"""Angles that a machine's gates cannot take, folded into those that they can."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.angle import PI
from qcomp.ir.gates import BY_NAME, G
from qcomp.ir.run import Run
from qcomp.passes.map.splicing import Part, gates_at, spliced
from qcomp.passes.reduce.leaves import Phase

__all__ = ["LIMITS", "PULSES", "beyond", "folded", "pulses"]

LIMITS: Mapping[str, str] = MappingProxyType(
    {
        "rzz": "theta in [0, pi/2]",
        "ms": "theta in [0, pi/2]",
        "rx": "theta pi/2, -pi/2 or pi",
    }
)
"""Gate -> the angles that are left where it is limited."""

PULSES = ("sx", "sxdg", "x")
"""What a limited ``rx`` can do."""

_SLACK = 1e-13
"""Radians that rounding may put an angle beyond its limit."""

_HALF = PI >> 1
_THETA = {"rzz": 0, "ms": 2, "rx": 0}
"""Which angle is limited."""


def beyond(run: Run, limits: frozenset[str]) -> NDArray[np.bool_]:
    """Return which operations have an angle that no folding brings into its limits, bool[n].

    Those are angles with parameters, and for ``rx`` all that are no multiples of pi/2.

    Args:
        run: The run.
        limits: Names of the limited gates.
    """
    out = np.zeros(len(run), dtype=bool)
    for name in limits:
        at = np.flatnonzero(run.code == BY_NAME[name].code)
        entry = run.angle[at] + _THETA[name]
        out[at] = run.form[entry] >= 0
        if name == "rx":
            out[at] |= (run.rem[entry] != 0) | (run.frac[entry] % _HALF != 0)
    return out


def pulses(run: Run) -> tuple[Run, Phase]:
    """Write ``sx``, ``sxdg`` and ``x`` as ``rx``.

    ``sx = exp(i pi/4) rx(pi/2)``, ``sxdg = exp(-i pi/4) rx(-pi/2)``, ``x = exp(i pi/2) rx(pi)``.
    """
    parts: list[Part] = []
    keep = np.ones(len(run), dtype=bool)
    phase = 0
    for code, angle in ((G.SX, _HALF), (G.SXDG, -_HALF), (G.X, PI)):
        at = np.flatnonzero(run.code == code)
        keep[at] = False
        phase += len(at) * (angle >> 1)
        parts.append(gates_at("rx", at, 0, (run.qubit[at, 0],), (angle,)))
    return (run, Phase()) if keep.all() else (spliced(run, keep, parts), Phase(phase))


def folded(run: Run, limits: frozenset[str]) -> tuple[Run, Phase]:
    """Fold the limited angles of numbers into their range; what is beyond stays as it is.

    ``rzz(t) = (-i ZZ)^m rzz(t - m pi)``, ``rzz(-t) = X_a rzz(t) X_a``; ``ms(p, q, t) = (-i A B)^m
    ms(p, q, t - m pi)`` with A = gpi(p), B = gpi(q), ``ms(p, q, -t) = ms(p + pi, q, t)``; ``rx(t) =
    -rx(t - 2 pi)``. An interaction of no angle is left out.

    Args:
        run: The run.
        limits: Names of the limited gates.
    """
    fixed = ~beyond(run, limits)
    parts: list[Part] = []
    keep = np.ones(len(run), dtype=bool)
    phase = 0
    for name in ("rzz", "ms"):
        if name in limits:
            at = np.flatnonzero((run.code == BY_NAME[name].code) & fixed)
            phase += _interactions(run, name, at, keep, parts)
    if "rx" in limits:
        at = np.flatnonzero((run.code == G.RX) & fixed)
        quarters = (run.frac[run.angle[at]] // _HALF) % 8
        # The quarters of 2 pi and more are those below, with a sign.
        kept = np.isin(run.frac[run.angle[at]], (_HALF, -_HALF, PI))
        at, quarters = at[~kept], quarters[~kept]
        keep[at] = False
        phase += PI * int(np.isin(quarters, (3, 4, 5, 6)).sum())
        turn = np.array([0, 1, 2, -1])[quarters % 4] * _HALF
        some = turn != 0
        parts.append(gates_at("rx", at[some], 0, (run.qubit[at[some], 0],), (turn[some],)))
    return (run, Phase()) if keep.all() else (spliced(run, keep, parts), Phase(phase))


def _interactions(
    run: Run, name: str, at: NDArray[np.intp], keep: NDArray[np.bool_], parts: list[Part]
) -> int:
    """Fold ``rzz`` or ``ms``; return the phase in units of pi / 2**60."""
    entry = run.angle[at] + _THETA[name]
    value = run.frac[entry] * (np.pi / PI) + run.rem[entry]
    out = (value < -_SLACK) | (value > np.pi / 2 + _SLACK)
    out |= (run.frac[entry] == 0) & (run.rem[entry] == 0)
    at, entry, value = at[out], entry[out], value[out]
    keep[at] = False
    times = np.ceil(value / np.pi - 0.5 - _SLACK).astype(np.int64)
    frac, rem = run.frac[entry] - times * PI, run.rem[entry]
    value = frac * (np.pi / PI) + rem
    # Half turns times themselves are -1, what is left of m of them is (-i)^m.
    odd = times % 2 == 1
    a, b = run.qubit[at, 0], run.qubit[at, 1]
    minus = value < -_SLACK
    live = (frac != 0) | (rem != 0)
    sign = np.where(minus, -1, 1)
    if name == "rzz":
        for rank in (-1, 1):
            parts.append(gates_at("x", at[minus], rank, (a[minus],)))
        parts.append(
            gates_at("rzz", at[live], 0, (a[live], b[live]), ((sign * frac)[live],),
                     ((sign * rem)[live],))
        )  # fmt: skip
        parts += [gates_at("z", at[odd], 2 + k, (wire[odd],)) for k, wire in enumerate((a, b))]
    else:
        first = run.angle[at]
        turned = run.frac[first] + np.where(minus, PI, 0)
        angles = [
            (turned, run.rem[first], run.form[first]),
            (run.frac[first + 1], run.rem[first + 1], run.form[first + 1]),
            (sign * frac, sign * rem, np.full(len(at), -1, dtype=np.int32)),
        ]
        some = [[values[live] for values in kind] for kind in zip(*angles, strict=True)]
        parts.append(gates_at("ms", at[live], 0, (a[live], b[live]), *some))
        for k, wire in enumerate((a, b)):
            phi = [run.frac[first + k][odd], run.rem[first + k][odd], run.form[first + k][odd]]
            parts.append(
                gates_at("gpi", at[odd], 2 + k, (wire[odd],), *([values] for values in phi))
            )
    return -int(times.sum()) * _HALF
