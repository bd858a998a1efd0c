"""From a reduced circuit to a machine's own gates: the last steps of its pipelines, as text."""

from __future__ import annotations

from qcomp.errors import TargetError
from qcomp.ir.gates import BY_NAME
from qcomp.pipelines import for_basis

__all__ = ["for_native", "into_native", "one_qubit_form", "pair_of"]

_REDUCED = ("rz", "sx", "x", "cx")
_SWEEP = "merge-rotations,cancel-inverses"


def for_native(
    gates: tuple[str, ...], limits: tuple[str, ...] = (), effort: str = "default"
) -> str:
    """Return the pipeline text for a machine with any gates.

    The circuit is reduced over ``rz``, ``sx``, ``x`` and ``cx``, then written in the machine's
    gates. Where it has interactions of any angle, those of the circuit are kept as they are first;
    what the reductions over ``cx`` make of them is taken where it has fewer.

    Args:
        gates: The machine's gates.
        limits: Those that take certain angles only, as ``to-basis{limits}`` knows them.
        effort: fast, default or max.
    """
    reduced = for_basis(_REDUCED, "rz-sx-x", effort)
    pairs = _into_pairs(gates, limits, "rz-sx-x")
    if not pairs or effort == "fast":
        return f"{reduced},{into_native(gates, limits)}"
    own = f"to-basis{{gates=[{','.join(_REDUCED)}]}}"
    kept = (
        f"{_SWEEP},merge-pauli-rotations,cancel-inverses,{own},{_SWEEP},"
        f"fuse-one-qubit{{basis=rz-sx-x}},{pairs}"
    )
    first = "bind-weights,to-basis{gates=[cx],max_qubits=1}"
    shared = f"{reduced.removeprefix(first + ',')},{pairs}"
    ways = f"best{{cost=two_qubit}}(way({kept}),way({shared}))"
    return f"{first},{ways},{into_native(gates, limits)}"


def _into_pairs(gates: tuple[str, ...], limits: tuple[str, ...], form: str) -> str:
    """Return the steps that write two-qubit gates in the machine's; none where that is like CX.

    Args:
        gates: The machine's gates.
        limits: Those that take certain angles only.
        form: One-qubit gates to write beside them.
    """
    names = tuple(BY_NAME[name].name for name in gates)
    pair = pair_of(names)
    if pair == "cx":
        return ""
    tight = tuple(name for name in limits if BY_NAME[name].num_qubits == 2)
    two = [name for name in names if BY_NAME[name].num_qubits == 2]
    steps = [f"consolidate-two-qubit{{basis={form},two_qubit=4,pair={pair}}}"]
    if pair != "siswap":
        free = pair == "iswap" or set(two) - {*tight, "cx", "cz", "ecr", "zzmax"}
        steps.insert(0, "collect-rzz" if free else "collect-rzz{symbols=false}")
    # What ms does about X is written about Z first, where turns about Z pass it.
    two = ["rzz" if name == "ms" else name for name in two]
    tight = tuple(name for name in tight if name != "ms")
    return ",".join(
        (*steps, f"to-basis{{gates=[{','.join((*form.split('-'), *two))}]{_text(tight)}}}")
    )


def one_qubit_form(gates: tuple[str, ...], limits: tuple[str, ...] = ()) -> str:
    """Return the one-qubit gates to write chains in, turns about Z among them where they can be.

    Machines without such turns take them into the directions of their pulses (push-virtual-z), so
    their chains are written with them too: one ``r``, at most two ``gpi2``, and a turn. A limited
    ``rx`` can do what ``sx`` and ``x`` do.

    Args:
        gates: The machine's gates.
        limits: Those that take certain angles only.

    Raises:
        TargetError: If the one-qubit gates cannot make all others.
    """
    has = {BY_NAME[name].name for name in gates}
    if "r" in has:
        return "rz-r"
    if {"gpi", "gpi2"} <= has:
        return "rz-gpi-gpi2"
    if "u" in has:
        return "u"
    if "rx" in limits or {"rz", "sx"} <= has:
        return "rz-sx-x-rx" if "rx" in has and "rx" not in limits else "rz-sx-x"
    plain = "-".join(name for name in gates if BY_NAME[name].num_qubits == 1)
    if {"rz", "h"} <= has or {"rz", "rx"} <= has or {"rz", "ry"} <= has:
        return plain
    raise TargetError(
        f"the one-qubit gates {plain or 'of the machine'} make no turn by any angle",
        hint="a machine needs rz with sx, rx or h, or one of r, u, or gpi with gpi2",
    )


def pair_of(gates: tuple[str, ...]) -> str:
    """Return the gate that ``consolidate-two-qubit{pair}`` writes blocks in for a machine.

    Interactions of any angle come first: one of them does what two fixed gates do.

    Args:
        gates: The machine's gates.
    """
    has = {BY_NAME[name].name for name in gates}
    for pair, members in (
        ("rzz", {"rzz", "rxx", "ryy", "rzx", "ms", "cp", "crz"}),
        ("cx", {"cx", "cz", "ecr", "zzmax"}),
        ("iswap", {"iswap", "xy"}),
        ("siswap", {"siswap", "siswapdg"}),
    ):
        if members & has:
            return pair
    return "cx"


def into_native(gates: tuple[str, ...], limits: tuple[str, ...] = ()) -> str:
    """Return the steps that write a reduced circuit in a machine's gates.

    The circuit comes over any gates that are reduced, such as ``rz``, ``sx``, ``x`` and ``cx``.

    1. Blocks are written in the machine's two-qubit gate, where that is no CX but for gates on one
       qubit; symbolic turns between CX gates are one interaction where the machine has it.
    2. Chains of one-qubit gates get the machine's cheapest form, with turns about Z.
    3. The turns move through the circuit into the directions of pulses. What is left of them before
       measurements is dropped where the machine has no such turn, and else written.

    Args:
        gates: The machine's gates.
        limits: Those that take certain angles only, as ``to-basis{limits}`` knows them.
    """
    names = tuple(BY_NAME[name].name for name in gates)
    form = one_qubit_form(names, limits)
    pairs = [name for name in names if BY_NAME[name].num_qubits == 2]
    plain = form if form in ("rz-r", "rz-sx-x", "u") else "rz-sx-x"
    steps = [step for step in (_into_pairs(names, limits, plain),) if step]
    if "ms" in pairs and "rzz" not in pairs:
        steps.append(f"merge-rotations,fuse-one-qubit{{basis={plain}}},push-virtual-z")
    tight = tuple(name for name in limits if name in pairs)
    chain = [name for name in form.split("-") if name not in pairs]
    own = f"to-basis{{gates=[{','.join(names)}]{_text(limits)}}}"
    turning = f"to-basis{{gates=[{','.join((*chain, *pairs))}]{_text(tight)}}}"
    fuse = f"fuse-one-qubit{{basis={form}}}"
    steps += [turning, "merge-rotations", "cancel-inverses", turning, fuse, turning]
    if "rz" in chain:
        steps += ["push-virtual-z", fuse, "push-virtual-z"]
        if form == "rz-r":
            steps += ["merge-quarter-turns", "push-virtual-z"]
        elif "rx" in chain:
            steps += ["merge-quarter-turns{into=rx}", fuse]
        if "rz" not in names:
            alone = "-".join(name for name in names if name not in pairs)
            steps += ["drop-dead-gates", own, f"fuse-one-qubit{{basis={alone}}}"]
    return ",".join((*steps, own))


def _text(limits: tuple[str, ...]) -> str:
    return f",limits=[{','.join(limits)}]" if limits else ""
