"""The dilation: any matrix as the corner of a unitary on one more qubit."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from qcomp.constructions.block_encoding import BlockEncoding, square_matrix
from qcomp.constructions.multiplexers import multiplexed_rotation, walsh_angles
from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit
from qcomp.passes.synthesize.unitary.synthesis import synthesize_unitary

__all__ = ["dilation"]


def dilation(matrix: ArrayLike, seed: int = 0) -> BlockEncoding:
    """Return the block encoding ``V . sum_x |x><x| (x) RY(2 arccos(s_x / scale)) . W``.

    ``A = V S W`` is the singular value decomposition and ``scale`` its largest value |A|, the least
    that any block encoding has. One ancilla; V and W act on the system alone, as only the corner
    of the unitary is prescribed.

    Cost: two unitaries of n qubits, ``2^n - 1`` CX for the multiplexed rotation.

    Args:
        matrix: [2^n, 2^n], n >= 1.
        seed: Seed of the unitaries' synthesis.

    Raises:
        UsageError: If the matrix is not square of a size 2^n, or is 0.
    """
    a = square_matrix(matrix)
    n = len(a).bit_length() - 1
    v, s, w = np.linalg.svd(a)
    scale = float(s[0])
    if scale == 0 or n < 1:
        raise UsageError(
            "the matrix is 0" if n else "a matrix of one entry needs no circuit",
            hint="there is nothing to encode",
        )
    system, ancilla = list(range(n)), n
    circuit = Circuit(n + 1, name="dilation").compose(synthesize_unitary(w, seed=seed), system)
    angles = walsh_angles(2 * np.arccos(np.clip(s / scale, -1, 1)))
    # The CZ that is left out acts on the ancilla at 1 alone, beyond the block.
    multiplexed_rotation(circuit, "y", angles, system, ancilla, last_cx=False, entangler="cz")
    circuit = circuit.compose(synthesize_unitary(v, seed=seed), system)
    return BlockEncoding(circuit, n, scale, "dilation")
