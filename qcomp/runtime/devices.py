"""Where circuits run: the built-in simulator, or qiskit-aer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit
from qcomp.ir.program import Readout
from qcomp.mitigation.options import Mitigation
from qcomp.runtime.aer import run_aer

__all__ = ["DEVICES", "run_on"]

Array = NDArray[np.generic]
Rows = NDArray[np.float64]


def run_on(
    device: str,
    circuit: Circuit,
    readout: Readout,
    rows: Rows,
    shots: int | None,
    seed: int,
    noise: str | None = None,
    mitigation: Mitigation | None = None,
) -> Array:
    """Return what a circuit gives back for each row of parameters.

    Args:
        device: A key of ``DEVICES``.
        circuit: The circuit.
        readout: What is read out.
        rows: float64[B, P], parameters in the circuit's order.
        shots: Samples in place of the readout's own; 0 for exact values.
        seed: Seed of the samples.
        noise: Name of the machine whose noise there is; ``aer`` alone has any.
        mitigation: What is done about noise.

    Returns:
        The array [B, ...] that :class:`~qcomp.ir.program.Readout` describes.

    Raises:
        UsageError: If the readout cannot be had there.
    """
    if noise is None and (mitigation is None or mitigation.is_empty):
        return DEVICES[device](circuit, readout, rows, shots, seed)
    if device != "aer":
        raise UsageError(
            f"the device '{device}' has no noise to add or to mitigate", hint="give --device aer"
        )
    return run_aer(circuit, readout, rows, shots, seed, noise, mitigation)


def _sim(circuit: Circuit, readout: Readout, rows: Rows, shots: int | None, seed: int) -> Array:
    from qcomp.simulate import run_readout

    return np.asarray(run_readout(circuit, readout, rows, shots=shots, seed=seed))


DEVICES: dict[str, Callable[[Circuit, Readout, Rows, int | None, int], Array]] = {
    "sim": _sim,
    "aer": run_aer,
}
"""Name -> function; ``sim`` is built in."""
