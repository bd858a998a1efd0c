"""The pipelines that have names: what each effort does to a circuit, as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from qcomp.errors import UsageError, suggest
from qcomp.ir.gates import gate

if TYPE_CHECKING:
    from qcomp.cost import CostModel
    from qcomp.target import Target

__all__ = ["EFFORT_PIPELINES", "RULES", "for_basis", "for_cost", "with_rules"]

_SWEEP = "merge-rotations,cancel-inverses"
"""Linear: rotations meet over wires and parities, inverse neighbours go."""

_ACROSS = f"{_SWEEP},merge-pauli-rotations,cancel-inverses"
"""Rotations meet across Hadamards too; the sweep first leaves it little to visit."""

_PLAIN = ("rz", "sx", "x", "cx")
"""What circuits are reduced over before they are mapped."""

_MAX_ROUNDS = 3
"""Most rounds of each way of the ``max`` effort; it stops as soon as nothing changes."""

RULES: Mapping[str, str] = MappingProxyType(
    {
        "permutation": "absorb-swaps",
        "zero-start": "assume-zero",
        "only-bits": "drop-dead-gates",
    }
)
"""Rules that use more than the unitary, in the order in which their passes run."""

_COST = "gates+3*two_qubit+rotations"
"""What ``max`` makes less; a CX gate counts as four gates, as in the steps before."""

_SEARCHES = (("steps=150,work=20000", ""), ("steps=400,work=140000", ",patient=true"))
"""Options of the searches of ``max``: at the end of each way, and on the best of them."""


def _rewrites(one_qubit: str, into: str, parities: str) -> str:
    """Return the steps that write regions anew, each kept only where it costs less.

    With Hadamards in the basis, Pauli rotations are written before blocks on two qubits, which
    mostly hold Clifford gates and T. In a machine's basis the blocks come first: they hold whole
    interactions, which the ladders of Pauli rotations would tear apart. A CX gate weighs as much as
    four others: a dearer one buys CX gates with too many others.

    Args:
        one_qubit: The one-qubit gates as ``fuse-one-qubit`` takes them; ``own`` for any.
        into: Steps that write the circuit over ``cx`` and these, each with a comma behind it.
        parities: The step for phase polynomials.
    """
    paulis = f"resynthesize-pauli-rotations{{basis={one_qubit},two_qubit=4}}"
    blocks = f"consolidate-two-qubit{{basis={one_qubit},two_qubit=4}}"
    fuse = "fuse-one-qubit" if one_qubit == "own" else f"fuse-one-qubit{{basis={one_qubit}}}"
    cliffords = "resynthesize-cliffords"
    if one_qubit == "own" or "h" in one_qubit.split("-"):
        return f"{parities},{paulis},{into}{_SWEEP},{cliffords},{blocks},{_SWEEP},{fuse}"
    return f"{parities},{into}{cliffords},{blocks},{_SWEEP},{fuse},{paulis},{_SWEEP},{fuse}"


def _efforts(one_qubit: str, into: str) -> dict[str, str]:
    """Return effort -> the steps that reduce a circuit over ``cx`` and one-qubit gates."""
    fuse = "fuse-one-qubit" if one_qubit == "own" else f"fuse-one-qubit{{basis={one_qubit}}}"
    usual = _rewrites(one_qubit, into, "resynthesize-phase-polynomials")
    prices = "" if one_qubit == "own" else f"{{basis={one_qubit}}}"
    searched = "" if one_qubit == "own" else f",basis={one_qubit}"
    windows = f"resynthesize-windows{prices}"
    blocks = f"consolidate-two-qubit{{basis={one_qubit},two_qubit=4}}"
    parities = "resynthesize-phase-polynomials{tries=8}"
    thorough = _rewrites(one_qubit, into, parities)
    networks = "resynthesize-pauli-networks{tries=4,slack=2},resynthesize-cliffords"
    # Blocks and networks before phase polynomials: another start, now better and now worse.
    starts = (
        f"{_ACROSS},{thorough},{windows},{into}{_SWEEP},{fuse},{networks},cancel-inverses,{blocks},"
        f"{_SWEEP},{fuse}",
        f"{_ACROSS},{into}{blocks},{_ACROSS},{networks},{_SWEEP},{parities},{into}{blocks},"
        f"{windows},{into}{_SWEEP},{fuse}",
    )
    first, last = (
        f'search{{{bounds},cost="{_COST}"{searched}{more}}}' for bounds, more in _SEARCHES
    )
    default = f"{_ACROSS},{usual}"
    steps = (default, *(f"repeat{{times={_MAX_ROUNDS}}}({start})" for start in starts))
    ways = ",".join(f"way({step},{into}{first})" for step in steps)
    return {
        "fast": f"{_SWEEP},{into}{fuse},{_SWEEP}",
        "default": default,
        "max": f'best{{cost="{_COST}"}}({ways}),{last}',
    }


EFFORT_PIPELINES: Mapping[str, str] = MappingProxyType(
    {name: f"to-basis{{max_qubits=2}},{text}" for name, text in _efforts("own", "").items()}
)
"""Effort -> pipeline text for a circuit without a target: gates stay the user's own, those on three
and more qubits are taken apart, since their parts are where most is to be saved."""


def for_basis(gates: tuple[str, ...], one_qubit: str, effort: str = "default") -> str:
    """Return the pipeline text for a machine.

    Trained weights become numbers first. Rotations meet through ``cx`` and not through the
    ``h cz h`` that a machine may have for it, so circuits are reduced over ``cx`` and the machine's
    one-qubit gates, and written in its own two-qubit gates after that; the last step sees to it
    that only gates of the basis are left.

    Args:
        gates: The basis, such as ("cz", "rz", "sx", "x").
        one_qubit: Its one-qubit gates as ``fuse-one-qubit`` takes them, such as "rz-sx-x".
        effort: fast, default or max.
    """
    single = [name for name in gates if gate(name).num_qubits == 1]
    fuse = f"fuse-one-qubit{{basis={one_qubit}}}"
    over_cx = "bind-weights,to-basis{gates=[cx],max_qubits=1}"
    into = f"to-basis{{gates=[{','.join((*single, 'cx'))}]}}"
    own = f"to-basis{{gates=[{','.join(gates)}]}}"
    last = f"{own},{fuse},{own}" if "cx" in gates else f"{own},{_SWEEP},{fuse},{own}"
    return f"{over_cx},{_efforts(one_qubit, f'{into},')[effort]},{last}"


def for_cost(cost: CostModel, effort: str, target: Target | None = None) -> str:
    """Return the pipeline text that makes a cost of the user's own less, by the effort ``max``.

    ``best`` of ways, judged by the cost in the gates that are written in the end: the ``default``
    effort; ``max`` with searches by this cost; where T gates have a weight, ``default`` and
    ``reduce-t-count``; where circuits are mapped, ``max`` by either cost before the mapping.

    Args:
        cost: What is to become less.
        effort: The effort that was asked for.
        target: The machine; None where gates stay the user's own.

    Raises:
        UsageError: If the effort is another: fast and default are fixed steps, no search.
    """
    if effort != "max":
        raise UsageError(
            f"the effort '{effort}' looks for no cost of one's own: its steps are fixed",
            hint="give the cost to the effort max",
        )
    usual, most = (
        EFFORT_PIPELINES[name] if target is None else target.pipeline(name)
        for name in ("default", "max")
    )
    ways = [usual, _searching(most, cost)]
    if target is None and cost.t:
        ways.append(f"{usual},reduce-t-count,{_SWEEP}")
    if target is not None and target.device is not None:
        reduced = for_basis(_PLAIN, "rz-sx-x", "max")
        ways += [f"{before},{usual}" for before in (reduced, _searching(reduced, cost))]
    # Weights become numbers in the graph, before any way looks at a circuit.
    first = "bind-weights," if "bind-weights," in ways[0] else ""
    ways = [way.replace("bind-weights,", "") for way in dict.fromkeys(ways)]
    return f'{first}best{{cost="{cost}"}}({",".join(f"way({way})" for way in ways)})'


def with_rules(text: str, allow: Sequence[str]) -> str:
    """Return a pipeline text that makes use of more than the unitary, as far as it is allowed.

    Every rule is off unless it is asked for: ``permutation`` lets swaps rename the qubits after
    them (the layout says where each ends), ``zero-start`` takes qubits to start in |0>,
    ``only-bits`` drops what no measurement sees.

    Args:
        text: The pipeline.
        allow: Names of rules.

    Raises:
        UsageError: If a rule is unknown.
    """
    for name in allow:
        if name not in RULES:
            raise UsageError(f"there is no rule '{name}'", hint=suggest(name, RULES))
    return ",".join([*(step for name, step in RULES.items() if name in allow), text])


def _searching(text: str, cost: CostModel) -> str:
    """Return a pipeline whose choices and searches go by another cost than the usual one."""
    return text.replace(f'cost="{_COST}"', f'cost="{cost}"')
