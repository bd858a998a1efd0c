"""Write groups of gates that add up as one gate each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.angle import PI, wrap
from qcomp.ir.forms import Forms
from qcomp.ir.gates import NUM_ANGLES
from qcomp.ir.run import Run
from qcomp.passes.reduce.families import (
    ANGLE_CODE,
    CONTROLLED,
    FAMILY,
    MODE,
    NAMED,
    NAMED_TURN,
    PHASED,
    PHASED_CODE,
    PURE,
    QUARTER_CONTROLLED,
    ROTATION,
)
from qcomp.passes.reduce.leaves import Leaf, Phase

__all__ = ["Groups", "Summands", "summands", "write_groups"]


@dataclass(frozen=True, slots=True)
class Summands:
    """What each operation adds to its group.

    Attributes:
        frac: int64[n], units of pi / 2**60, of named gates too.
        rem: float64[n], radians.
        form: int32[n], its row of the forms, -1 for none.
    """

    frac: NDArray[np.int64]
    rem: NDArray[np.float64]
    form: NDArray[np.int32]


def summands(run: Run) -> Summands:
    """Return what each operation of a run adds (its first angle, or the angle of its name)."""
    frac = wrap(NAMED_TURN[run.code])
    rem = np.zeros(len(run))
    form = np.full(len(run), -1, dtype=np.int32)
    has = run.angle >= 0
    entry = run.angle[has]
    frac[has], rem[has], form[has] = run.frac[entry], run.rem[entry], run.form[entry]
    return Summands(frac, rem, form)


@dataclass(frozen=True, slots=True)
class Groups:
    """Operations that act as one, over n operations and g groups.

    Attributes:
        group: int32[n], -1 for none.
        sign: int8[n], the sign with which the operation's angle counts.
        leader: int32[g], the operation that stays.
        size: int32[g], members; 0 for a group that is not to be written.
        frac: int64[g], signed sum of the exact parts, in [-2 pi, 2 pi).
        rem: float64[g], signed sum of the float parts.
        symbol: int64[g], fingerprint of the signed sum of the symbolic parts, 0 where it vanishes.
        words: int8[g], the members' vocabulary, or-ed.
    """

    group: NDArray[np.int32]
    sign: NDArray[np.int8]
    leader: NDArray[np.int32]
    size: NDArray[np.int32]
    frac: NDArray[np.int64]
    rem: NDArray[np.float64]
    symbol: NDArray[np.int64]
    words: NDArray[np.int8]

    @staticmethod
    def blank(operations: int, groups: int) -> Groups:
        """Return arrays for a kernel to fill: nothing grouped."""
        return Groups(
            np.full(operations, -1, dtype=np.int32),
            np.ones(operations, dtype=np.int8),
            np.zeros(groups, dtype=np.int32),
            np.zeros(groups, dtype=np.int32),
            np.zeros(groups, dtype=np.int64),
            np.zeros(groups),
            np.zeros(groups, dtype=np.int64),
            np.zeros(groups, dtype=np.int8),
        )

    def arrays(self) -> tuple[object, ...]:
        """Return the arrays in the order in which kernels take them."""
        return (
            self.group,
            self.sign,
            self.leader,
            self.size,
            self.frac,
            self.rem,
            self.symbol,
            self.words,
        )


def write_groups(
    run: Run,
    forms: Forms,
    add: Summands,
    groups: Groups,
    count: int,
    dead: NDArray[np.bool_] | None = None,
) -> Leaf:
    """Replace every group of two and more gates, or of no effect, by at most one gate.

    The gate is written in the words of those it replaces: plain rotations stay plain, phase gates
    stay phase gates; where a named gate took part, a multiple of pi/4 with a name gets that name
    (``cs`` only where one took part), anything else becomes the rotation. ``rz(pi/2) rz(pi/2) =
    rz(pi)``, ``t t = s``, ``t rz(x) = exp(i pi/8) rz(x + pi/4)``.

    Args:
        run: The run.
        forms: The circuit's forms.
        add: What each operation adds.
        groups: The groups; the first ``count`` are in use.
        count: Number of groups.
        dead: bool[n], operations to drop for another reason, in no group; None for none.
    """
    leader = groups.leader[:count]
    mode = MODE[FAMILY[run.code[leader]]]
    period = np.where((mode == ROTATION) | (mode == PURE), 2 * PI, 4 * PI)
    still = (groups.rem[:count] == 0) & (groups.symbol[:count] == 0)
    still &= (groups.frac[:count] % period == 0) & (groups.size[:count] > 0)
    index = np.flatnonzero((groups.size[:count] > 1) | still)
    if not len(index) and (dead is None or not dead.any()):
        return run, forms, Phase()
    leader, mode, still = leader[index], mode[index], still[index]
    family = FAMILY[run.code[leader]]
    sign = groups.sign[leader].astype(np.int64)
    turn = wrap(groups.frac[index] * sign)
    rem = groups.rem[index] * sign
    words = groups.words[index]

    # The members of the groups at hand, as positions in ``index``.
    place = np.full(len(groups.leader) + 1, -1, dtype=np.int64)
    place[index] = np.arange(len(index))
    member_group = place[groups.group]
    members = np.flatnonzero(member_group >= 0)
    member_group = member_group[members]
    symbolic = (add.form[members] >= 0) & (groups.symbol[index] != 0)[member_group]
    terms = members[symbolic]
    forms, form = forms.combine(
        add.form[terms],
        (groups.sign[terms] * sign[member_group[symbolic]]).astype(np.float64),
        member_group[symbolic],
        len(index),
    )

    exact = (rem == 0) & (form < 0)
    eighths = (turn >> 58) % 8
    name = np.where(exact & (turn % (PI >> 2) == 0), NAMED[family, eighths], -1)
    named = ~still & (name >= 0) & ((words & 4) > 0)
    named &= (family != QUARTER_CONTROLLED) | (eighths == 4) | ((words & 8) > 0)
    phased = ~still & ~named & (words == 2) & (PHASED_CODE[family] >= 0)
    written = ~still & ~named
    code = np.where(named, name, np.where(phased, PHASED_CODE[family], ANGLE_CODE[family]))
    # Below a controlled rotation a whole turn is no phase: its angle stays as it is.
    out_turn = np.where(written & (mode != CONTROLLED), _within_a_turn(turn), turn)

    # Twice the phase: what the members carried, less what the new gates carry.
    carried = members[PHASED[run.code[members]] == 1]
    twice = int(add.frac[carried].sum(dtype=np.int64))
    twice_rem = float(add.rem[carried].sum())
    rotation = mode == ROTATION
    twice += int(turn[rotation & still].sum(dtype=np.int64))
    gone = rotation & (named | phased)
    twice -= int(turn[gone].sum(dtype=np.int64))
    twice_rem -= float(rem[gone].sum())
    lost = rotation & written & ~phased
    twice += int((turn - out_turn)[lost].sum(dtype=np.int64))
    phase = Phase.halved(
        twice,
        twice_rem,
        forms,
        np.concatenate([add.form[carried], form[gone]]),
        np.concatenate([np.ones(len(carried)), -np.ones(int(gone.sum()))]),
    )

    new_code = run.code.copy()
    new_code[leader[~still]] = code[~still]
    angle = run.angle.copy()
    angle[leader[named]] = -1
    angled = np.flatnonzero(written & (NUM_ANGLES[np.maximum(code, 0)] > 0))
    angle[leader[angled]] = len(run.frac) + np.arange(len(angled))
    keep = np.ones(len(run), dtype=bool)
    keep[members] = False
    keep[leader[~still]] = True
    if dead is not None:
        keep &= ~dead
    grown = Run(
        new_code,
        run.qubit,
        angle,
        np.concatenate([run.frac, out_turn[angled]]),
        np.concatenate([run.rem, rem[angled]]),
        np.concatenate([run.form, form[angled]]),
        run.extra,
    )
    return grown.select(keep), forms, phase


def _within_a_turn(frac: NDArray[np.int64]) -> NDArray[np.int64]:
    """Reduce units of pi / 2**60 into [-pi, pi)."""
    result: NDArray[np.int64] = ((frac + PI) & (2 * PI - 1)) - PI
    return result
