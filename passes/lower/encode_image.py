"""encode-image: an image becomes the circuit of its state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from qcomp.constructions.images.frqi import IMAGES, ImageState, encode_image
from qcomp.errors import PassError, UsageError, suggest
from qcomp.ir.arrays import array_nodes, array_of, put_circuit
from qcomp.ir.program import Program
from qcomp.passmanager import Context, GraphPass, Guarantee
from qcomp.simulate import probabilities

__all__ = ["EncodeImage"]

_SIMULATED = 14
"""Most qubits of a circuit that is read back in place of a check by its formula alone."""


@dataclass(frozen=True)
class EncodeImage(GraphPass):
    """Replace a node ``ai.qcomp::Image`` by a circuit that prepares the image.

    ::

        frqi: 2^-n/2 sum_i (cos t_i |0> + sin t_i |1>) |i>, t_i in [0, pi/2] the brightness
        neqr: 2^-n/2 sum_i |v_i> |i>, v_i the brightness as a whole number

    Position qubits come first, the columns' bits and then the rows'; the brightness is behind
    them. The cheapest of several forms is taken: Walsh weights along a short walk, exact zeros left
    out, and equal pixels merged into cubes. An image whose sides are no powers of two is padded by
    repeating its edge, and the circuit's notes say so. ``ImageState.decode`` of
    :mod:`qcomp.constructions.images.frqi` reads the image back.

    Preserves: the image exactly, to 1e-9 of its range; with epsilon within what the notes state.
    To 14 qubits the image is read back from exact probabilities and compared.

    Cost: ``2^n - 1`` two-qubit gates at most for 2^n pixels (for each bit of NEQR); the
    minimisation looks at 3^n subcubes times the different pixels where that is below 2^21.

    Source: Le, Dong and Hirota, 2011 (FRQI); Zhang, Lu, Gao and Wang, 2013 (NEQR); 'Improved FRQI
    on superconducting processors and its restrictions in the NISQ era' (the simplified circuits).

    Attributes:
        method: "frqi" or "neqr".
        epsilon: Weights of FRQI's angles of at most so many radians are left out.
        bits: Bits of a brightness in NEQR; 0 for as many as whole numbers need, else 8.
        way: "auto", "walsh" or "cubes".
    """

    name: ClassVar[str] = "encode-image"
    preserves: ClassVar[Guarantee] = Guarantee.WITHIN

    method: str = "frqi"
    epsilon: float = 0.0
    bits: int = 0
    way: str = "auto"

    def run(self, program: Program, context: Context) -> bool:
        """Lower every image; return whether there was one.

        Raises:
            UsageError: If there is no such method, or an option is not the method's.
            PassError: If the circuit does not give the image back.
        """
        if self.method not in IMAGES:
            raise UsageError(
                f"there is no method '{self.method}' for images", hint=suggest(self.method, IMAGES)
            )
        options: dict[str, object] = {"way": self.way}
        for own, name, value in (("frqi", "epsilon", self.epsilon), ("neqr", "bits", self.bits)):
            if own == self.method:
                options[name] = value
            elif value:
                raise UsageError(
                    f"'{name}' is an option of '{own}', not of '{self.method}'",
                    hint=f"leave it out, or take method={own}",
                )
        nodes = array_nodes(program, "Image")
        for node in nodes:
            image = array_of(node)
            state = encode_image(image, self.method, **options)
            state.circuit.notes = (*state.circuit.notes, *state.notes)
            _check(state, image)
            put_circuit(program, node, state.circuit)
        return bool(nodes)


def _check(state: ImageState, image: NDArray[np.float64]) -> None:
    """Read the image back from the circuit's exact probabilities.

    Raises:
        PassError: If it is another one.
    """
    if state.circuit.num_qubits > _SIMULATED:
        return
    found = state.decode(probabilities(state.circuit)[0])
    error = float(np.abs(found - image).max()) - state.dropped
    if not error <= 1e-9 * (state.high - state.low):
        raise PassError(
            f"the circuit of the image gives pixels that are {error:.3g} off",
            hint="this is a fault of the pass; report it",
        )
