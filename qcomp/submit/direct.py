"""A readout from a machine that gives bits, waited for here: what ``qcomp run`` does.

The circuits that a job would send (:mod:`qcomp.submit.settings`) are given to a sampler at once.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit
from qcomp.ir.program import Readout
from qcomp.runtime.estimates import Estimate
from qcomp.submit.ibm import IbmMachine
from qcomp.submit.patience import Patience
from qcomp.submit.plan import connect
from qcomp.submit.provider import Batch
from qcomp.submit.settings import DEFAULT_SHOTS, Setting, call_of, observed

__all__ = ["from_ibm", "from_samples", "provider_sampler"]

Bits = NDArray[np.uint8]
Sampler = Callable[[list[Setting]], list[Bits]]


def from_samples(
    circuit: Circuit,
    readout: Readout,
    rows: NDArray[np.float64],
    shots: int,
    sampler: Sampler,
) -> Estimate:
    """Return what a circuit gives back, from samples alone.

    Args:
        circuit: The circuit.
        readout: What is read out.
        rows: float64[B, P].
        shots: Shots of each setting.
        sampler: Gives uint8[B, shots, bits] for each of some settings.

    Raises:
        TargetError: If the readout cannot be had of samples.
    """
    call = call_of((0, 0), circuit, readout, rows, shots, None)
    bits = sampler(list(call.settings))
    return Estimate(call.decode(bits), call.errors(bits))


def provider_sampler(provider: str, device: str, seed: int) -> Sampler:
    """Return the sampler of a device that runs in this process.

    Args:
        provider: A name of the registry's group ``providers``.
        device: The provider's name of the device.
        seed: Seed, where the device takes one.
    """

    def run(settings: list[Setting]) -> list[Bits]:
        machine = connect(provider, device, Patience())
        machine.check(settings)
        out = [
            np.zeros((len(s.rows), s.shots, s.circuit.num_clbits), dtype=np.uint8) for s in settings
        ]
        for number, pieces in enumerate(machine.split(settings)):
            cut = tuple(
                Setting(
                    settings[p.setting].circuit,
                    settings[p.setting].rows[p.start : p.stop],
                    settings[p.setting].shots,
                    settings[p.setting].name,
                    settings[p.setting].profile,
                )
                for p in pieces
            )
            batch = Batch(cut, f"direct-{number}", seed + number)
            found = machine.results(machine.send(batch), batch)
            for piece, bits in zip(pieces, found, strict=True):
                out[piece.setting][piece.start : piece.stop] = bits
        return out

    return run


def from_ibm(
    device: str,
    circuit: Circuit,
    readout: Readout,
    rows: NDArray[np.float64],
    shots: int | None,
    seed: int,
) -> Estimate:
    """Return a readout from IBM's primitives in their local mode.

    Expectation values come from ``EstimatorV2``, with a precision of ``1 / sqrt(shots)``; bits from
    ``SamplerV2``. Rows are the parameter array of one PUB.

    Args:
        device: A fake backend, such as ``fake_torino``.
        circuit: The circuit in the device's own gates.
        readout: What is read out.
        rows: float64[B, P].
        shots: Samples in place of the readout's own.
        seed: Seed of the samples.

    Raises:
        UsageError: If the device is not one of this computer.
        TargetError: If it cannot run the circuit.
    """
    if not device.startswith("fake_"):
        raise UsageError(
            f"'ibm:{device}' is a machine of IBM's service, whose jobs wait in a queue",
            hint=f"qcomp submit ARTIFACT --provider ibm --device {device}",
        )
    if readout.kind != "expval":
        return from_samples(
            circuit, readout, rows, shots or 0, provider_sampler("ibm", device, seed)
        )
    machine = connect("ibm", device, Patience())
    assert isinstance(machine, IbmMachine)
    plain, observables = observed(circuit, readout)
    setting = Setting(plain, rows, shots or readout.shots or DEFAULT_SHOTS, circuit.name)
    machine.check([setting])
    values, errors = machine.expectations(setting, observables, seed)
    return Estimate(values, errors)
