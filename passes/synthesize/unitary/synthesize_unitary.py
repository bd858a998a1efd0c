"""synthesize-unitary: a matrix becomes the circuit of its unitary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qcomp.budget import OPERATOR_NORM
from qcomp.errors import PassError
from qcomp.ir.arrays import array_nodes, array_of, put_circuit
from qcomp.ir.program import Program
from qcomp.passes.synthesize.unitary.synthesis import (
    ACCURACY,
    closed_count,
    distance_from_unitary,
    synthesize_unitary,
)
from qcomp.passmanager import Context, GraphPass, Guarantee
from qcomp.simulate import unitary

__all__ = ["SynthesizeUnitary"]

_ROUNDING = 1e-9
_NEAR = 1e-12
"""A matrix this near to unitary is one up to rounding."""


@dataclass(frozen=True)
class SynthesizeUnitary(GraphPass):
    """Replace a node ``ai.qcomp::Unitary`` by a circuit with ``U |x> = matrix[:, x]``.

    One qubit is a gate, two are Cartan's decomposition. ``auto`` sees diagonals,
    products with one qubit and multiplexers, fits three and four qubits as a
    whole, with fewer CX gates where there is structure, and takes more apart by block-ZXZ into
    leaves of four (to 7 qubits) or three (8) that are fitted up to diagonals;
    ``numeric`` fits five qubits as a whole, too, which takes a minute; ``block-zxz`` is the closed
    form alone.

    Preserves: the matrix to 1e-9, global phase included; to 10 qubits the circuit is multiplied
    out and compared. A matrix that is not unitary, but within ``accuracy`` (operator norm) of one,
    is replaced by the nearest, and a warning says how far that is.

    Cost in CX gates: of random matrices 3, 14, 61, 285, 1224 on 2 to 6 qubits, by block-ZXZ
    ``22/48 4^n - 3/2 2^n + 5/3``; O(8^n) operations.

    Source: Krol and Al-Ars, 2024, arXiv:2403.13692; Shende, Bullock and Markov, 2006,
    quant-ph/0406176; Madden and Simonetto, 2021, arXiv:2106.05649.

    Attributes:
        method: "auto", "numeric" or "block-zxz".
        accuracy: How far from unitary a matrix may be, operator norm.
    """

    name: ClassVar[str] = "synthesize-unitary"
    preserves: ClassVar[Guarantee] = Guarantee.WITHIN

    method: str = "auto"
    accuracy: float = ACCURACY

    def run(self, program: Program, context: Context) -> bool:
        """Lower every unitary; return whether there was one.

        Raises:
            UsageError: If there is no such method, or a matrix is not unitary.
            PassError: If a circuit does not have the unitary that was asked for.
        """
        nodes = array_nodes(program, "Unitary")
        for node in nodes:
            matrix = array_of(node)
            circuit = synthesize_unitary(
                matrix, method=self.method, accuracy=self.accuracy, seed=context.seed
            )
            away = distance_from_unitary(matrix)
            if away > _NEAR:
                context.warn(
                    f"the matrix '{node.name}' is {away:.2g} from unitary: the nearest one is taken"
                )
            stats, n = circuit.stats(), circuit.num_qubits
            words = f"{n} qubits, {stats.two_qubit} CX gates, depth {stats.depth}"
            if n <= 10:
                error = float(np.linalg.norm(unitary(circuit) - matrix, 2))
                if error > away + _ROUNDING:
                    raise PassError(
                        f"the circuit's unitary is {error:.3g} off in operator norm",
                        hint="this is a fault of the pass; take method=block-zxz and report it",
                    )
                context.ledger.spend(self.name, away + _ROUNDING, error, OPERATOR_NORM)
                words += f", error {error:.1e}"
            circuit.notes = (
                f"the unitary '{node.name}': {words} (block-ZXZ: {closed_count(n)} CX gates)",
            )
            put_circuit(program, node, circuit)
        return bool(nodes)
