"""Is this circuit or graph the same as that one, and how do we know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from qcomp.equivalence.circuits import check_bits, check_circuits
from qcomp.equivalence.mapped import check_from_zero, check_mapped
from qcomp.equivalence.verdict import TOLERANCE, Verdict
from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit
from qcomp.ir.program import Program

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["TOLERANCE", "Verdict", "check"]


def check(
    a: Circuit | Program,
    b: Circuit | Program,
    seed: int = 0,
    inputs: Mapping[str, NDArray[np.generic]] | None = None,
    *,
    only_bits: bool = False,
    from_zero: bool = False,
) -> Verdict:
    """Say whether two circuits, or two programs, are the same.

    Circuits go down a ladder of methods and stop at the first that decides, see
    :func:`~qcomp.equivalence.circuits.check_circuits`. Programs are run on inputs, see
    :func:`~qcomp.equivalence.graphs.check_programs`; programs of one circuit each are compared as
    circuits. Where a circuit was mapped onto a machine its layout is undone first, see
    :func:`~qcomp.equivalence.mapped.check_mapped`.

    Args:
        a: The reference.
        b: The candidate.
        seed: Seed of random bindings, states and inputs.
        inputs: Inputs of two graphs, name -> array; generated when None.
        only_bits: Compare circuits by the joint distribution of their classical bits alone, and
            not by the states that they leave, see
            :func:`~qcomp.equivalence.circuits.check_bits`.
        from_zero: Compare circuits by what they do to |0...0> alone.

    Raises:
        UsageError: If one is a circuit and the other a graph.
    """
    if isinstance(a, Program) and isinstance(b, Program) and a.is_circuit and b.is_circuit:
        a, b = a.only_circuit, b.only_circuit
    if isinstance(a, Circuit) and isinstance(b, Circuit):
        if from_zero:
            return check_from_zero(a, b, seed, only_bits=only_bits)
        if a.layout is not None or b.layout is not None:
            return check_mapped(a, b, seed, only_bits=only_bits)
        if only_bits:
            return check_bits(a, b, seed)
        return check_circuits(a, b, seed)
    if isinstance(a, Program) and isinstance(b, Program):
        from qcomp.equivalence.graphs import check_programs

        return check_programs(a, b, seed, inputs)
    raise UsageError("a circuit cannot be compared with a classical graph")
