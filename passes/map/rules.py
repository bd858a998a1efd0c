"""Identities between gates, and the cheapest chains of them into a basis."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from qcomp.errors import TargetError
from qcomp.ir.angle import Angle
from qcomp.ir.definitions import Step, definition, multi_controlled_x, parse_definition
from qcomp.ir.gates import BY_NAME, GATES, gate

__all__ = ["RULES", "Template", "Translation"]

RULES: tuple[tuple[str, str], ...] = (
    ("id", ""),
    ("u", "gphase(p/2+l/2+pi/2); rz(l) a; sx a; rz(t+pi) a; sx a; rz(p+pi) a"),
    ("u", "gphase(p/2+l/2); rz(l) a; ry(t) a; rz(p) a"),
    ("u", "gphase(p/2+l/2); rz(l-pi/2) a; rx(t) a; rz(p+pi/2) a"),
    ("u", "gphase(p/2+l/2); rz(l-pi/2) a; h a; rz(t) a; h a; rz(p+pi/2) a"),
    ("p", "gphase(t/2); rz(t) a"),
    ("rx", "h a; rz(t) a; h a"),
    ("rx", "r(t,0) a"),
    ("rx", "rz(pi/2) a; ry(t) a; rz(-pi/2) a"),
    ("ry", "sx a; rz(t) a; sxdg a"),
    ("ry", "gphase(pi/2); sx a; rz(t+pi) a; sx a; rz(pi) a"),
    ("ry", "sdg a; h a; rz(t) a; h a; s a"),
    ("ry", "r(t,pi/2) a"),
    ("ry", "rz(-pi/2) a; rx(t) a; rz(pi/2) a"),
    ("rz", "h a; rx(t) a; h a"),
    ("rz", "rx(-pi/2) a; ry(t) a; rx(pi/2) a"),
    ("r", "rz(-p) a; rx(t) a; rz(p) a"),
    ("h", "gphase(pi/4); rz(pi/2) a; sx a; rz(pi/2) a"),
    ("h", "gphase(pi/2); rz(pi) a; ry(pi/2) a"),
    ("h", "gphase(pi/2); rz(pi/2) a; rx(pi/2) a; rz(pi/2) a"),
    ("h", "gphase(-pi/4); s a; sx a; s a"),
    ("x", "h a; z a; h a"),
    ("x", "sx a; sx a"),
    ("x", "gphase(pi/2); rx(pi) a"),
    ("y", "gphase(pi/2); z a; x a"),
    ("y", "gphase(pi/2); ry(pi) a"),
    ("z", "s a; s a"),
    ("z", "gphase(pi/2); rz(pi) a"),
    ("z", "h a; x a; h a"),
    ("s", "t a; t a"),
    ("s", "gphase(pi/4); rz(pi/2) a"),
    ("sdg", "z a; s a"),
    ("sdg", "gphase(-pi/4); rz(-pi/2) a"),
    ("t", "gphase(pi/8); rz(pi/4) a"),
    ("tdg", "sdg a; t a"),
    ("tdg", "gphase(-pi/8); rz(-pi/4) a"),
    ("sx", "h a; s a; h a"),
    ("sx", "gphase(pi/4); rx(pi/2) a"),
    ("sxdg", "h a; sdg a; h a"),
    ("sxdg", "sx a; x a"),
    ("sxdg", "gphase(pi/2); rz(pi) a; sx a; rz(pi) a"),
    ("cx", "h b; cz a,b; h b"),
    ("cx", "gphase(pi/4); rz(pi/2) a; rx(pi/2) b; x a; ecr a,b"),
    ("cx", "gphase(pi/4); rz(pi/2) a; rx(pi/2) b; rzx(-pi/2) a,b"),
    ("cz", "gphase(pi/4); rz(pi/2) a; rz(pi/2) b; rzz(-pi/2) a,b"),
    ("cz", "cp(pi) a,b"),
    ("cz", "cs a,b; cs a,b"),
    ("cy", "sdg b; cx a,b; s b"),
    ("cx", "s b; cy a,b; sdg b"),
    ("cp", "p(t/2) a; crz(t) a,b"),
    ("cp", "gphase(t/4); rz(t/2) a; rz(t/2) b; rzz(-t/2) a,b"),
    ("crz", "rz(t/2) b; rzz(-t/2) a,b"),
    ("rzz", "h b; rzx(t) a,b; h b"),
    ("rzz", "h a; h b; rxx(t) a,b; h a; h b"),
    ("rxx", "h a; h b; rzz(t) a,b; h a; h b"),
    ("rxx", "s a; s b; ryy(t) a,b; sdg a; sdg b"),
    ("ryy", "sdg a; sdg b; rxx(t) a,b; s a; s b"),
    ("rzx", "h b; rzz(t) a,b; h b"),
    ("rzx", "h a; rxx(t) a,b; h a"),
    ("ecr", "x a; rzx(-pi/2) a,b"),
    ("ccx", "h c; ccz a,b,c; h c"),
    ("dcx", "h a; sdg a; sdg b; iswap a,b; h b"),
    ("iswap", "rxx(-pi/2) a,b; ryy(-pi/2) a,b"),
    # Half and quarter turns in the plane: IonQ, IQM, Quantinuum.
    ("rz", "gpi(0) a; gpi(t/2) a"),
    ("rz", "gphase(pi); r(pi,0) a; r(pi,t/2) a"),
    ("x", "gpi(0) a"),
    ("y", "gpi(pi/2) a"),
    ("sx", "gphase(pi/4); gpi2(0) a"),
    ("sxdg", "gphase(-pi/4); gpi2(pi) a"),
    ("gpi", "gphase(pi/2); r(pi,t) a"),
    ("gpi2", "r(pi/2,t) a"),
    ("u", "gphase(p/2+l/2); r(t,pi/2-l) a; rz(p+l) a"),
    # Two qubits.
    ("rxx", "ms(0,0,t) a,b"),
    ("rxx", "xy(-t) a,b; x a; xy(-t) a,b; x a"),
    ("rzx", "sdg b; iswap a,b; rx(t) a; iswap a,b; z a; sdg b"),
    ("swap", "gphase(-pi/2); rz(-pi/2) a; rz(-pi/2) b; iswap a,b; cz a,b"),
    ("iswap", "xy(pi) a,b"),
    ("iswap", "siswap a,b; siswap a,b"),
    ("siswap", "z a; siswapdg a,b; z a"),
    ("siswapdg", "z a; siswap a,b; z a"),
    (
        "cz",
        "gphase(pi/4); rz(pi/2) a; rz(pi/2) b; h a; h b; siswap a,b; x a; siswap a,b; x a; h a; "
        "h b",
    ),
    ("cz", "gphase(-pi/4); rz(-pi/2) a; rz(-pi/2) b; zzmax a,b"),
)
"""(gate, the same in other gates, operands a b c, angles t p l g), beside the gate definitions."""

_IMPOSSIBLE = 1 << 30


def _cost(name: str) -> int:
    """Cost of one gate of the basis: a diagonal one-qubit gate merges best and weighs least."""
    row = gate(name)
    if row.num_qubits == 1:
        return 9 if row.is_diagonal else 10
    return {0: 0, 2: 100}.get(row.num_qubits, 1000)


@functools.cache
def _identities() -> tuple[tuple[str, tuple[Step, ...]], ...]:
    own = [(row.name, definition(row.name)) for row in GATES if row.definition_text]
    return (*own, *((name, parse_definition(text)) for name, text in RULES))


@dataclass(frozen=True, slots=True)
class Template:
    """A gate in the basis.

    Attributes:
        steps: (gate name, operands, angles over t, p, l, g) in time order.
        phase: The global phase that goes with them.
    """

    steps: tuple[tuple[str, tuple[int, ...], tuple[Angle, ...]], ...]
    phase: Angle


@dataclass(frozen=True)
class Translation:
    """How every gate is made in one basis.

    Attributes:
        basis: The gates of the basis.
        discrete: Whether rotations are to be written by named gates afterwards.
        powers: For k eighths of a turn the shortest named gates that make ``p(k pi/4)``.
    """

    basis: tuple[str, ...]
    discrete: bool
    powers: Mapping[int, tuple[str, ...]]
    _choice: Mapping[str, tuple[Step, ...]] = field(repr=False)
    _made: dict[str, Template] = field(default_factory=dict, repr=False, compare=False)

    @staticmethod
    @functools.cache
    def into(basis: tuple[str, ...]) -> Translation:
        """Return the translation into a basis: its cheapest chains, found once."""
        choice, cost = _search(basis)
        powers = _powers(basis)
        if cost["rz"] < _IMPOSSIBLE or len(powers) < 2:
            return Translation(basis, False, {}, choice)
        choice, _ = _search((*basis, "rz"))
        return Translation(basis, True, powers, choice)

    @property
    def codes(self) -> list[int]:
        """Codes of the basis."""
        return [BY_NAME[name].code for name in self.basis]

    def __str__(self) -> str:
        """Return the basis as text."""
        return "[" + ",".join(self.basis) + "]"

    def of(self, name: str) -> Template:
        """Return a gate in the basis.

        Raises:
            TargetError: If the basis cannot make it.
        """
        if name not in self._made:
            self._made[name] = _joined(self._flatten(self._steps(name), name))
        return self._made[name]

    def of_mcx(self, num_controls: int) -> Template:
        """Return X with that many controls in the basis.

        Raises:
            TargetError: If the basis cannot make it.
        """
        key = f"mcx {num_controls}"
        if key not in self._made:
            self._made[key] = _joined(self._flatten(multi_controlled_x(num_controls), "mcx"))
        return self._made[key]

    def _steps(self, name: str) -> tuple[Step, ...]:
        if name not in self._choice:
            raise TargetError(
                f"the gate '{name}' cannot be made from the basis {self}",
                why="no chain of definitions leads from it into the basis",
                hint="a basis that makes everything has rz and sx, or u, and one of cx, cz, ecr",
            )
        return self._choice[name]

    def _flatten(self, steps: Sequence[Step], whole: str) -> list[Step]:
        out: list[Step] = []
        for step in steps:
            name = step.gate.name
            if name in self.basis or name == "gphase" or (self.discrete and name == "rz"):
                out.append(step)
                continue
            values = dict(zip("tplg", step.angles, strict=False))
            try:
                inner = self._flatten(self._steps(name), whole)
            except TargetError as error:
                error.where = error.where or f"in the gate '{whole}'"
                raise
            for part in inner:
                angles = tuple(_substitute(angle, values) for angle in part.angles)
                out.append(Step(part.gate, tuple(step.qubits[q] for q in part.qubits), angles))
        return out


def _substitute(angle: Angle, values: Mapping[str, Angle]) -> Angle:
    total = Angle(angle.frac, angle.rem)
    for name, factor in angle.terms:
        total = total + values[name] * factor
    return total


def _joined(steps: Iterable[Step]) -> Template:
    phase = Angle()
    kept = []
    for step in steps:
        if step.gate.name == "gphase":
            phase = phase + step.angles[0]
        else:
            kept.append((step.gate.name, step.qubits, step.angles))
    return Template(tuple(kept), phase)


def _search(basis: tuple[str, ...]) -> tuple[dict[str, tuple[Step, ...]], dict[str, int]]:
    """Return each gate's best identity and its cost, gates of the basis by themselves."""
    cost = {row.name: _IMPOSSIBLE for row in GATES}
    cost["gphase"] = 0
    for name in basis:
        cost[name] = _cost(name)
    choice: dict[str, tuple[Step, ...]] = {}
    changed = True
    while changed:
        changed = False
        for name, steps in _identities():
            total = sum(cost[step.gate.name] for step in steps)
            if name not in basis and total < cost[name]:
                cost[name], choice[name], changed = total, steps, True
    return choice, cost


def _powers(basis: tuple[str, ...]) -> dict[int, tuple[str, ...]]:
    """Return for k eighths of a turn the fewest named gates that make ``p(k pi/4)``."""
    turns = {"t": 1, "s": 2, "z": 4, "sdg": 6, "tdg": 7}
    names = [name for name in turns if name in basis]
    found: dict[int, tuple[str, ...]] = {0: ()}
    for length in range(1, 8):
        for word in product(names, repeat=length):
            found.setdefault(sum(turns[name] for name in word) % 8, word)
        if len(found) == 8:
            break
    return found
