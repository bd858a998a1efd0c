"""to-basis: every gate is written in the gates that a machine has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import TargetError, UsageError, suggest
from qcomp.ir.angle import PI, Angle, pi_text, wrap, wrap_int
from qcomp.ir.circuit import Circuit
from qcomp.ir.forms import Forms
from qcomp.ir.gates import BY_NAME, GATES, NUM_ANGLES, NUM_QUBITS, G
from qcomp.ir.run import Run
from qcomp.passes.map.limits import LIMITS, PULSES, beyond, folded, pulses
from qcomp.passes.map.rules import Template, Translation
from qcomp.passes.reduce.leaves import Leaf, Phase, rewrite_leaves
from qcomp.passmanager import CircuitPass, Context, Guarantee

__all__ = ["ToBasis"]

_PASSING = np.isin(np.arange(len(GATES)), [G.MEASURE, G.RESET, G.BARRIER, G.GPHASE])


def translate_run(
    run: Run,
    forms: Forms,
    translation: Translation,
    kept: NDArray[np.bool_] | None = None,
    *,
    symbols: bool = False,
) -> Leaf:
    """Write one run in a basis; the same run comes back when it already is.

    Args:
        run: The run.
        forms: The circuit's forms.
        translation: The basis.
        kept: Gates by code that may stay; those of the basis if None.
        symbols: In a basis without angles, whether ``rz`` of a parameter may stay.

    Raises:
        TargetError: If a gate cannot be made, or an angle is no multiple of what the basis has.
    """
    codes = [*translation.codes, *([G.RZ] if translation.discrete else [])]
    inside = _PASSING | (np.isin(np.arange(len(GATES)), codes) if kept is None else kept)
    strange = ~inside[run.code]
    phase = Phase()
    if strange.any():
        run, forms, phase = expand(run, forms, strange, translation)
    if translation.discrete:
        run, more = _name_rotations(run, translation, symbols)
        phase = Phase(phase.frac + more.frac, phase.rem + more.rem, phase.row)
    return run, forms, phase


def translate_within(
    run: Run, forms: Forms, basis: tuple[str, ...], limits: frozenset[str]
) -> Leaf:
    """Write one run in a basis some of whose gates take certain angles only.

    Args:
        run: The run.
        forms: The circuit's forms.
        basis: The gates.
        limits: Those that are limited, as ``LIMITS`` says.

    Raises:
        TargetError: If a gate cannot be made, or an angle is no multiple of what the basis has.
    """
    # A limited rx is made of its pulses; what else is beyond its limits is made over cx.
    fixed = tuple(name for name in basis if name != "rx" or "rx" not in limits)
    more = PULSES if "rx" in limits else ()
    own = Translation.into((*fixed, *(name for name in more if name not in fixed)))
    spare = tuple(name for name in own.basis if name not in limits)
    over_cx = Translation.into((*spare, "cx") if "cx" not in spare else spare)
    original = run
    total = Phase()

    def settle(leaf: Leaf) -> None:
        nonlocal run, forms, total
        run, forms, phase = leaf
        total = _sum(total, phase)

    for _ in range(2):
        names = own.codes + ([G.RX] if "rx" in limits else [])
        kept = np.isin(np.arange(len(GATES)), names)
        far = beyond(run, limits)
        if far.any():
            settle(expand(run, forms, far, over_cx))
        settle(translate_run(run, forms, own, kept))
        folds, phase = folded(run, limits)
        settle((folds, forms, phase))
        if not beyond(run, limits).any():
            settle(translate_run(run, forms, own, kept))
            break
    if "rx" in limits:
        turned, phase = pulses(run) if set(PULSES).isdisjoint(basis) else (run, Phase())
        settle((turned, forms, phase))
    return (run, forms, total) if run is not original else (original, forms, Phase())


def _sum(a: Phase, b: Phase) -> Phase:
    row = dict(a.row)
    for column, factor in b.row:
        row[column] = row.get(column, 0.0) + factor
    return Phase(a.frac + b.frac, a.rem + b.rem, tuple(sorted(row.items())))


def expand(run: Run, forms: Forms, strange: NDArray[np.bool_], translation: Translation) -> Leaf:
    """Put a template in the place of each gate outside the basis."""
    n = len(run)
    kinds: list[tuple[NDArray[np.intp], Template]] = []
    lengths = np.ones(n, dtype=np.int64)
    for code in np.unique(run.code[strange]).tolist():
        if code != G.MCX:
            rows = np.flatnonzero(strange & (run.code == code))
            kinds.append((rows, translation.of(GATES[code].name)))
            continue
        which = np.flatnonzero(strange & (run.code == code))
        for operands in np.unique(run.qubit[which, 1]).tolist():
            rows = which[run.qubit[which, 1] == operands]
            kinds.append((rows, translation.of_mcx(operands - 1)))
    for rows, template in kinds:
        lengths[rows] = len(template.steps)
    start = np.cumsum(lengths) - lengths
    total = int(lengths.sum())
    code = np.zeros(total, dtype=np.uint8)
    qubit = np.full((total, 3), -1, dtype=np.int32)
    kept = np.flatnonzero(~strange)
    code[start[kept]], qubit[start[kept]] = run.code[kept], run.qubit[kept]
    for rows, template in kinds:
        wide = bool(len(rows)) and NUM_QUBITS[run.code[rows[0]]] < 0
        for k, (name, operands, _) in enumerate(template.steps):
            code[start[rows] + k] = BY_NAME[name].code
            for j, operand in enumerate(operands):
                source = (
                    run.extra[run.qubit[rows, 0] + operand] if wide else run.qubit[rows, operand]
                )
                qubit[start[rows] + k, j] = source
    counts = NUM_ANGLES[code].astype(np.int64)
    entry = np.cumsum(counts) - counts
    sums = _Sums(int(counts.sum()))
    own = NUM_ANGLES[run.code[kept]].astype(np.int64)
    shift = np.arange(int(own.sum())) - np.repeat(np.cumsum(own) - own, own)
    old = np.repeat(run.angle[kept], own) + shift
    new = np.repeat(entry[start[kept]], own) + shift
    sums.add(new, 1.0, run.frac[old], run.rem[old], run.form[old])
    phase = Angle()
    rows_of_phase: list[tuple[NDArray[np.int32], NDArray[np.float64]]] = []
    for rows, template in kinds:
        first = run.angle[rows]
        for k, (_, _, angles) in enumerate(template.steps):
            for j, angle in enumerate(angles):
                target = entry[start[rows] + k] + j
                sums.constant(target, angle)
                for source, factor in _terms(angle):
                    at = first + source
                    sums.add(target, factor, run.frac[at], run.rem[at], run.form[at])
        phase += template.phase.bind(dict.fromkeys("tplg", 0.0)) * len(rows)
        for source, factor in _terms(template.phase):
            at = first + source
            frac, rem = _scaled(run.frac[at], run.rem[at], factor)
            phase += Angle(wrap_int(int(frac.sum(dtype=np.int64))), float(rem.sum()))
            rows_of_phase.append((run.form[at], np.full(len(at), factor)))
    forms, form = sums.forms(forms)
    out = Run(
        code,
        qubit,
        np.where(counts > 0, entry, -1).astype(np.int32),
        wrap(sums.frac),
        sums.rem,
        form,
        run.extra,
    )
    return out.normal(), forms, _phase(phase, rows_of_phase, forms)


def _phase(
    phase: Angle, rows: list[tuple[NDArray[np.int32], NDArray[np.float64]]], forms: Forms
) -> Phase:
    row: tuple[tuple[int, float], ...] = ()
    if rows:
        form = np.concatenate([part[0] for part in rows])
        scale = np.concatenate([part[1] for part in rows])
        some, index = forms.combine(form, scale, np.zeros(len(form), dtype=np.int64), 1)
        row = some.row(int(index[0]))
    return Phase(phase.frac, phase.rem, row)


def _terms(angle: Angle) -> list[tuple[int, float]]:
    """Return (angle of the defined gate, factor) pairs."""
    return [("tplg".index(name), factor) for name, factor in angle.terms]


def _scaled(
    frac: NDArray[np.int64], rem: NDArray[np.float64], factor: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Multiply angles by plus or minus a power of two up to 1, exactly where that is a unit."""
    divisor = round(1 / abs(factor))
    sign = 1 if factor > 0 else -1
    whole = frac % divisor == 0
    exact = np.where(whole, frac // divisor, 0) * sign
    return exact, rem * factor + np.where(whole, 0.0, frac * (np.pi / PI) * factor)


class _Sums:
    """Angle entries that are filled by adding scaled angles."""

    def __init__(self, size: int) -> None:
        self.frac = np.zeros(size, dtype=np.int64)
        self.rem = np.zeros(size)
        self._terms: list[tuple[NDArray[np.int64], NDArray[np.int32], float]] = []

    def constant(self, target: NDArray[np.int64], angle: Angle) -> None:
        """Add the constant part of a template's angle."""
        self.frac[target] += angle.frac
        self.rem[target] += angle.rem

    def add(
        self,
        target: NDArray[np.int64],
        factor: float,
        frac: NDArray[np.int64],
        rem: NDArray[np.float64],
        form: NDArray[np.int32],
    ) -> None:
        """Add ``factor`` times some angles to distinct entries."""
        exact, rest = _scaled(frac, rem, factor)
        self.frac[target] += exact
        self.rem[target] += rest
        if (form >= 0).any():
            self._terms.append((target, form, factor))

    def forms(self, forms: Forms) -> tuple[Forms, NDArray[np.int32]]:
        """Return the forms with the sums' rows added, and each entry's row."""
        if not self._terms:
            return forms, np.full(len(self.frac), -1, dtype=np.int32)
        return forms.combine(
            np.concatenate([form for _, form, _ in self._terms]),
            np.concatenate([np.full(len(form), factor) for _, form, factor in self._terms]),
            np.concatenate([target for target, _, _ in self._terms]),
            len(self.frac),
        )


def _name_rotations(run: Run, translation: Translation, symbols: bool) -> tuple[Run, Phase]:
    """Write the rotations of a basis without angles as powers of its named gates."""
    which = np.flatnonzero(run.code == G.RZ)
    if symbols:
        which = which[run.form[run.angle[which]] < 0]
    if not len(which):
        return run, Phase()
    entry = run.angle[which]
    eighths = (run.frac[entry] >> 58) % 8
    bad = (run.form[entry] >= 0) | (run.rem[entry] != 0) | (run.frac[entry] % (PI >> 2) != 0)
    bad |= ~np.isin(eighths, list(translation.powers))
    if bad.any():
        i = int(np.flatnonzero(bad)[0])
        text = _angle_text(run, int(entry[i]))
        raise TargetError(
            f"the gate 'rz({text})' cannot be made from the basis {translation}",
            where=f"qubit {int(run.qubit[which[i], 0])}, {int(bad.sum())} such rotations in all",
            why="a basis without angles makes multiples of pi/4 only",
            hint="approximate them: --max-error 1e-3 (or --max-t 3000), or 'synthesize-rotations' "
            "in a pipeline; or add rz to the gates",
        )
    lengths = np.ones(len(run), dtype=np.int64)
    for k, names in translation.powers.items():
        lengths[which[eighths == k]] = len(names)
    source = np.repeat(np.arange(len(run)), lengths)
    out = run.select(source)
    begin = np.cumsum(lengths) - lengths
    code, angle = out.code.copy(), out.angle.copy()
    for k, names in translation.powers.items():
        for step, name in enumerate(names):
            at = begin[which[eighths == k]] + step
            code[at] = BY_NAME[name].code
            angle[at] = -1
    out = Run(code, out.qubit, angle, out.frac, out.rem, out.form, out.extra).normal()
    # rz(a) = exp(-i a/2) p(a)
    twice = int(run.frac[entry].sum(dtype=np.int64)) & (4 * PI - 1)
    return out, Phase(-(twice // 2))


def _angle_text(run: Run, entry: int) -> str:
    parts = [pi_text(int(run.frac[entry]))] if run.frac[entry] else []
    if run.rem[entry]:
        parts.append(repr(float(run.rem[entry])))
    if run.form[entry] >= 0:
        parts.append("a parameter")
    return " + ".join(parts) or "0"


@dataclass(frozen=True)
class ToBasis(CircuitPass):
    """Write every gate in the gates of a basis.

    ``G(t, p, l) = exp(i c(t, p, l)) B_k(a_k) ... B_1(a_1)``, ``B`` from the basis, a affine.

    The identities are the gate table's definitions and those of ``rules.py``, searched for the
    cheapest chain that ends in the basis: 100 for a two-qubit gate, 10 for a one-qubit gate, 9 for
    a diagonal one (the relaxation of Bellman and Ford over gates). A multi-controlled ``mcx`` is
    written without ancillas. In a basis without angles, a rotation by a multiple of pi/4 becomes
    t, s, z gates.

    Options: ``gates``, the basis; measure, reset, barrier and phase are always in it.
    ``max_qubits``: every gate on at most so many qubits is in it too. Without both: the basis of
    the target that is compiled for. ``limits``, gates of the basis that take certain angles only:
    ``rzz`` and ``ms`` in [0, pi/2], ``rx`` at pi/2, -pi/2 and pi. Numbers are folded into them by
    Paulis, ``rzz(-t) = X_a rzz(t) X_a``; an angle with parameters, which no fold brings there for
    sure, is written with the others. ``symbols``: in a basis without angles, rotations by
    parameters stay as ``rz``; what binds them finds their words.

    Preconditions: none. Bodies of control flow are written too.

    Preserves: the unitary exactly, global phase included, symbolic angles included (an affine
    combination of them is one more row of the forms).

    Cost: linear in the output.

    Source: the gate definitions of OpenQASM 3 (arXiv:2104.14722) and Barenco et al. 1995
    (arXiv:quant-ph/9503016).

    Raises:
        TargetError: If a gate cannot be made; the message names it.
    """

    name: ClassVar[str] = "to-basis"
    preserves: ClassVar[Guarantee] = Guarantee.EXACT

    gates: tuple[str, ...] = ()
    max_qubits: int = 0
    limits: tuple[str, ...] = ()
    symbols: bool = False

    def run(self, circuit: Circuit, context: Context) -> Circuit:
        """Return the circuit in the basis; the same object when it already is.

        Raises:
            UsageError: If there is no basis, or a name is no gate.
            TargetError: If a gate cannot be made.
        """
        gates = self.gates
        if self.max_qubits > 0:
            small = (row.name for row in GATES if 0 < row.num_qubits <= self.max_qubits)
            gates = (*gates, *(name for name in small if BY_NAME[name].is_unitary))
        elif not gates and context.target is not None:
            gates = context.target.basis
        if not gates:
            raise UsageError("to-basis has no gates", hint="to-basis{gates=[cz,rz,sx,x]}")
        for name in gates:
            if name not in BY_NAME or not BY_NAME[name].is_unitary:
                known = [row.name for row in GATES if row.is_unitary]
                raise UsageError(f"there is no gate '{name}'", hint=suggest(name, known))
        basis = tuple(BY_NAME[name].name for name in gates)
        limited = [BY_NAME[name].name if name in BY_NAME else name for name in self.limits]
        for name in limited:
            if name not in LIMITS:
                raise UsageError(f"no limits of '{name}' are known", hint=suggest(name, LIMITS))
        limits = frozenset(limited) & set(basis)
        if limits:
            return rewrite_leaves(
                circuit, lambda run, forms: translate_within(run, forms, basis, limits)
            )
        translation = Translation.into(basis)
        return rewrite_leaves(
            circuit,
            lambda run, forms: translate_run(run, forms, translation, symbols=self.symbols),
        )
