"""Where circuits run: the built-in simulator and other packages' simulators, one interface.

==============  ==========================================  ===================================
``--device``    what runs                                   exact, or from shots
==============  ==========================================  ===================================
``sim``         the built-in statevector simulator          both; every readout
``aer``         qiskit-aer, with ``--noise`` too            both
``lightning``   PennyLane's ``lightning.qubit``             both; measurement at the end only
``braket``      Amazon Braket's local simulator             shots; measurement at the end only
``ibm:NAME``    IBM's primitives on a fake backend, such    shots, with the device's noise; the
                as ``ibm:fake_torino``                      circuit must be compiled for it
==============  ==========================================  ===================================
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import UsageError, suggest
from qcomp.ir.circuit import Circuit
from qcomp.ir.layout import unmapped
from qcomp.ir.program import Readout
from qcomp.mitigation.options import Mitigation
from qcomp.registry import load
from qcomp.runtime.aer import estimate_aer
from qcomp.runtime.estimates import Estimate, estimate
from qcomp.runtime.result_cache import keep, kept, key_of
from qcomp.simulate.distinct import on_distinct_rows

__all__ = ["DEVICES", "check_device", "estimate_on", "run_on"]

Array = NDArray[np.generic]
Rows = NDArray[np.float64]
Run = Callable[[Circuit, Readout, Rows, "int | None", int], Estimate]


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
    """Return what a circuit gives back for each row of parameters; see :func:`estimate_on`."""
    found = estimate_on(device, circuit, readout, rows, shots, seed, noise, mitigation)
    return found.values


def estimate_on(
    device: str,
    circuit: Circuit,
    readout: Readout,
    rows: Rows,
    shots: int | None,
    seed: int,
    noise: str | None = None,
    mitigation: Mitigation | None = None,
    *,
    cache: bool = False,
) -> Estimate:
    """Return what a circuit gives back for each row of parameters, and its standard errors.

    Exact results of equal rows are computed once.

    Args:
        device: A key of ``DEVICES``, or ``ibm:NAME``.
        circuit: The circuit.
        readout: What is read out.
        rows: float64[B, P], parameters in the circuit's order.
        shots: Samples in place of the readout's own; 0 for exact values.
        seed: Seed of the samples.
        noise: Name of the machine whose noise there is; ``aer`` alone has any.
        mitigation: What is done about noise.
        cache: Take results from disk, and keep them there (:mod:`qcomp.runtime.result_cache`);
            ``sim`` computes its own again, which is as quick.

    Raises:
        UsageError: If there is no such device, its package is missing, the readout cannot be had
            there, or shots or seed are no whole numbers.
    """
    run = check_device(device)
    _check_count("number of shots", shots)
    _check_count("seed", seed)
    plain = noise is None and (mitigation is None or mitigation.is_empty)
    if not plain and device != "aer":
        raise UsageError(
            f"the device '{device}' has no noise to add or to mitigate", hint="give --device aer"
        )
    key = ""
    if cache and device != "sim":
        key = key_of(device, circuit, readout, rows, shots, seed, (noise, mitigation))
        known = kept(key)
        if known is not None:
            return known

    def once(some: Rows) -> Estimate:
        if plain:
            return run(circuit, readout, some, shots, seed)
        return estimate_aer(circuit, readout, some, shots, seed, noise, mitigation)

    count = readout.shots if shots is None else shots
    if count or readout.kind == "bits":
        found = once(rows)
    else:
        found = estimate(readout, on_distinct_rows(rows, lambda some: once(some).values), 0)
    if key:
        keep(key, found)
    return found


def _check_count(what: str, value: object) -> None:
    """Refuse what is no whole number from 0 on; None is one that is not given."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if value is not None and not (whole and value >= 0):  # type: ignore[operator]  # whole
        raise UsageError(
            f"the {what} is {value!r}", hint="give a whole number that is not negative"
        )


def check_device(device: str) -> Run:
    """Return what runs a device's circuits.

    Raises:
        UsageError: If there is no such device.
    """
    if device.startswith("ibm:"):
        name = device.partition(":")[2]

        def ibm(
            circuit: Circuit, readout: Readout, rows: Rows, shots: int | None, seed: int
        ) -> Estimate:
            found = _vendor("ibm", "from-ibm")(name, circuit, readout, rows, shots, seed)
            assert isinstance(found, Estimate)
            return found

        return ibm
    if device not in DEVICES:
        names = [*DEVICES, "ibm:fake_torino"]
        raise UsageError(f"there is no device '{device}'", hint=suggest(device, names))
    return DEVICES[device]


def _vendor(package: str, service: str) -> Callable[..., object]:
    """Return a function that needs a vendor's client.

    Raises:
        UsageError: If the client is not installed.
    """
    import importlib.util

    module = {"ibm": "qiskit_ibm_runtime", "braket": "braket"}[package]
    if importlib.util.find_spec(module) is None:
        raise UsageError(
            f"the device '{package}' needs the vendor's client",
            hint=f"pip install 'qcomp[{package}]'",
        )
    found: Callable[..., object] = load("services", service)
    return found


def _sim(circuit: Circuit, readout: Readout, rows: Rows, shots: int | None, seed: int) -> Estimate:
    from qcomp.simulate import run_readout
    from qcomp.simulate.readout import estimated_expectations

    count = readout.shots if shots is None else shots
    if readout.kind == "expval" and count > 0 and not readout.order:
        rng = np.random.default_rng(seed)
        return Estimate(
            *estimated_expectations(unmapped(circuit), rows, readout.observables, count, rng)
        )
    values = np.asarray(run_readout(circuit, readout, rows, shots=shots, seed=seed))
    return estimate(readout, values, count)


def _aer(circuit: Circuit, readout: Readout, rows: Rows, shots: int | None, seed: int) -> Estimate:
    return estimate_aer(circuit, readout, rows, shots, seed)


def _lightning(
    circuit: Circuit, readout: Readout, rows: Rows, shots: int | None, seed: int
) -> Estimate:
    from qcomp.runtime.lightning import run_lightning

    return run_lightning(circuit, readout, rows, shots, seed)


def _braket(
    circuit: Circuit, readout: Readout, rows: Rows, shots: int | None, seed: int
) -> Estimate:
    from qcomp.runtime.lightning import on_own_qubits

    sampler = _vendor("braket", "provider-sampler")("braket", "local", seed)
    count = readout.shots if shots is None else shots
    if not count and readout.kind != "bits":
        raise UsageError(
            f"the device 'braket' gives '{readout.kind}' from samples only", hint="give --shots N"
        )
    plain, moved = on_own_qubits(circuit, readout)
    found = _vendor("braket", "from-samples")(plain, moved, rows, count, sampler)
    assert isinstance(found, Estimate)
    return found


DEVICES: dict[str, Run] = {"sim": _sim, "aer": _aer, "lightning": _lightning, "braket": _braket}
"""Name -> function; ``sim`` is built in."""
