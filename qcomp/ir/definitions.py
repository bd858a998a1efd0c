"""Gate definitions of the table, parsed from their text once, and gates expanded by them."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from qcomp.ir.angle import Angle, Parameter, pi_fraction
from qcomp.ir.gates import GATES, Gate, gate

__all__ = ["Step", "definition", "multi_controlled_x", "parse_definition"]


@dataclass(frozen=True, slots=True)
class Step:
    """One gate of a definition: its operands and angles in terms of the defined gate's."""

    gate: Gate
    qubits: tuple[int, ...]
    angles: tuple[Angle, ...]


_STEP = re.compile(r"(\w+)(?:\(([^)]*)\))?\s*([a-d,]*)")
ANGLE_NAMES = "tplg"


def _angle(text: str) -> Angle:
    total = Angle()
    for term in re.findall(r"[+-]?[^+-]+", text.replace(" ", "")):
        sign = -1 if term.startswith("-") else 1
        head, _, divisor = term.lstrip("+-").partition("/")
        scale = int(divisor or 1)
        if head == "pi":
            total += pi_fraction(sign, scale)
        elif head in ANGLE_NAMES:
            total += Parameter(head) * (sign / scale)
        else:
            total += sign * float(head) / scale
    return total


@functools.cache
def definition(name: str) -> tuple[Step, ...]:
    """Return the gate's definition in simpler gates; angles are affine in t, p, l, g.

    Empty for the primitives ``u``, ``cx``, ``gphase``, for operations that are no gates, and for
    gates of any number of operands.
    """
    return parse_definition(gate(name).definition_text)


def parse_definition(text: str) -> tuple[Step, ...]:
    """Return the steps of a definition text: ``h b; cx a,b; rz(t/2+pi) b``.

    Args:
        text: Gates with semicolons between; operands a, b, c, d; angles affine in t, p, l, g with
            integer divisors.
    """
    steps = []
    for part in text.split(";"):
        if not part.strip():
            continue
        match = _STEP.fullmatch(part.strip())
        assert match, part
        head, angles, operands = match.groups()
        steps.append(
            Step(
                gate(head),
                tuple("abcd".index(letter) for letter in operands.split(",") if letter),
                tuple(_angle(text) for text in angles.split(",")) if angles else (),
            )
        )
    return tuple(steps)


def multi_controlled_x(num_controls: int) -> list[Step]:
    """Return X with any number of controls as h, cx, ccx and cp, without ancillas.

    With three and more controls the last control serves as borrowed qubit:
    ``mcx = h(t) mcp(pi) h(t)`` and ``mcp_k(a) = cp(a/2; c_k, t) mcx(c.. -> c_k) cp(-a/2; c_k, t)
    mcx(c.. -> c_k) mcp_{k-1}(a/2; c.., t)``, each inner mcx borrowing the target. Quadratically
    many gates (Barenco et al. 1995, arXiv:quant-ph/9503016, Lemmas 7.2, 7.3 and 7.5).

    Args:
        num_controls: Controls, the operands 0 .. num_controls-1; the target comes last.
    """
    controls, target = tuple(range(num_controls)), num_controls
    if num_controls <= 2:
        return [Step(gate(("x", "cx", "ccx")[num_controls]), (*controls, target), ())]
    h = Step(gate("h"), (target,), ())
    return [h, *_multi_controlled_phase(pi_fraction(1), controls, target), h]


def _multi_controlled_phase(angle: Angle, controls: tuple[int, ...], target: int) -> list[Step]:
    if len(controls) == 1:
        return [Step(gate("cp"), (controls[0], target), (angle,))]
    *rest, last = controls
    flip = _borrowing_x(tuple(rest), last, (target,))
    half = angle / 2
    return [
        Step(gate("cp"), (last, target), (half,)),
        *flip,
        Step(gate("cp"), (last, target), (-half,)),
        *flip,
        *_multi_controlled_phase(half, tuple(rest), target),
    ]


def _borrowing_x(controls: tuple[int, ...], target: int, borrowed: tuple[int, ...]) -> list[Step]:
    """Return X on the target with controls, using qubits in any state that come back unchanged."""
    k = len(controls)
    if k <= 2:
        return [Step(gate(("x", "cx", "ccx")[k]), (*controls, target), ())]
    if len(borrowed) >= k - 2:
        return _ladder(controls, target, borrowed[: k - 2])
    # Lemma 7.3: split in two halves over one borrowed qubit, each half borrowing the other's.
    middle = (k + 1) // 2
    first, second = controls[:middle], (*controls[middle:], borrowed[0])
    low = _borrowing_x(first, borrowed[0], (*controls[middle:], target))
    high = _borrowing_x(second, target, first)
    return [*low, *high, *low, *high]


def _ladder(controls: tuple[int, ...], target: int, borrowed: tuple[int, ...]) -> list[Step]:
    """Return Lemma 7.2's ladder: 4 (k - 2) Toffolis with k - 2 borrowed qubits."""
    ccx = gate("ccx")
    down = [Step(ccx, (controls[-1], borrowed[-1], target), ())]
    for i in range(len(borrowed) - 1, 0, -1):
        down.append(Step(ccx, (controls[i + 1], borrowed[i - 1], borrowed[i]), ()))
    bottom = Step(ccx, (controls[0], controls[1], borrowed[0]), ())
    inner = [*down[1:], bottom, *reversed(down[1:])]
    return [down[0], *inner, down[0], *inner]


def defined_gates() -> tuple[str, ...]:
    """Return the names of all gates with a definition."""
    return tuple(row.name for row in GATES if row.definition_text)
