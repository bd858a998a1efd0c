"""Circuits on qiskit-aer: exact or sampled, with a machine's noise and what makes up for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit
from qcomp.ir.layout import unmapped
from qcomp.ir.observable import Observable
from qcomp.ir.program import Readout
from qcomp.mitigation.grouping import Group, combine, group_observables
from qcomp.mitigation.options import Mitigation
from qcomp.mitigation.readout import Confusion, nearest_distribution
from qcomp.mitigation.zne import zero_noise
from qcomp.runtime.estimates import Estimate, estimate, grouped_errors

__all__ = ["estimate_aer", "run_aer"]

Array = NDArray[np.generic]
Rows = NDArray[np.float64]


def run_aer(
    circuit: Circuit,
    readout: Readout,
    rows: Rows,
    shots: int | None,
    seed: int,
    noise: str | None = None,
    mitigation: Mitigation | None = None,
) -> Array:
    """Return the values of :func:`estimate_aer`."""
    return estimate_aer(circuit, readout, rows, shots, seed, noise, mitigation).values


def estimate_aer(
    circuit: Circuit,
    readout: Readout,
    rows: Rows,
    shots: int | None,
    seed: int,
    noise: str | None = None,
    mitigation: Mitigation | None = None,
) -> Estimate:
    """Return what a circuit gives back for each row of parameters, on qiskit-aer.

    Standard errors are those of the shots; values that were extrapolated or corrected have none.

    Args:
        circuit: The circuit; a mapped one runs on its own physical qubits.
        readout: What is read out.
        rows: float64[B, P].
        shots: Samples in place of the readout's own; 0 for exact values.
        seed: Seed of the samples.
        noise: Name of the device whose noise there is.
        mitigation: What is done about noise.

    Raises:
        UsageError: If qiskit-aer is not installed, the readout cannot be had, or the circuit is not
            one for the device.
    """
    try:
        import qiskit_aer  # noqa: F401  whether it is there
    except ModuleNotFoundError as error:
        raise UsageError(
            "the device 'aer' needs the package 'qiskit-aer'", hint="pip install qiskit-aer"
        ) from error
    count = readout.shots if shots is None else shots
    wanted = mitigation or Mitigation()
    _check(readout, count, wanted)
    job = _Aer(circuit, rows, count, seed, noise)
    if readout.kind != "expval":
        bits = job.bits(readout, wanted.readout)
        return Estimate(bits, None) if wanted.readout else estimate(readout, bits, count)
    if wanted.zne is None and count and not wanted.readout:
        return Estimate(*job.sampled(job.circuit, readout.observables))
    if wanted.zne is None:
        values = job.values(job.circuit, readout.observables, wanted.readout)
        return Estimate(values, None if count else np.zeros(values.shape))
    extrapolated = zero_noise(
        job.circuit,
        lambda folded: job.values(folded, readout.observables, wanted.readout),
        scales=wanted.scales,
        folding=wanted.folding,
        method=wanted.zne,
        asymptote=_asymptote(readout.observables, wanted),
        seed=seed,
    )
    return Estimate(extrapolated.values, None)


def _asymptote(observables: Sequence[Observable], wanted: Mitigation) -> NDArray[np.float64] | None:
    """Return the values at infinite noise, float64[K], where scales are too few to fit them.

    A completely mixed state gives the constant term of an observable. Four scales let ``auto``
    judge an exponential whose asymptote is fitted, and three let it be fitted.
    """
    few = {"auto": 4, "exponential": 3}.get(wanted.zne or "", 0)
    if len(wanted.scales) >= few:
        return None
    return np.array([sum(c for c, word in o.terms if not word) for o in observables], np.float64)


def _check(readout: Readout, count: int, wanted: Mitigation) -> None:
    """Check that what is asked for can be had of the readout.

    Raises:
        UsageError: If it cannot.
    """
    if not count and readout.kind not in ("bits", "expval"):
        raise UsageError(
            f"the device 'aer' gives '{readout.kind}' from samples only", hint="give --shots N"
        )
    if wanted.zne is not None and readout.kind != "expval":
        raise UsageError(
            f"zero-noise extrapolation is of expectation values, the circuit gives '{readout.kind}'"
        )
    if wanted.readout and readout.kind not in ("expval", "probs"):
        raise UsageError(
            "readout mitigation corrects expectation values and distributions, "
            f"the circuit gives '{readout.kind}'"
        )
    if wanted.readout and not count:
        raise UsageError("exact values have no readout errors to mitigate", hint="give --shots N")


class _Aer:
    """One circuit, its rows of parameters and the simulator they run on."""

    def __init__(
        self, circuit: Circuit, rows: Rows, count: int, seed: int, noise: str | None
    ) -> None:
        from qiskit_aer import AerSimulator

        virtual = circuit.num_qubits if circuit.layout is None else circuit.layout.num_virtual
        self.virtual = virtual
        self.circuit = unmapped(circuit)
        self.rows = rows
        self.count = count
        self.machine = None
        if noise is None:
            self.simulator: Any = AerSimulator(seed_simulator=seed, max_parallel_threads=1)
            return
        from qcomp.device import get_device
        from qcomp.runtime.noise import machine, wires_of

        self.machine = machine(get_device(noise), self.circuit, wires_of(circuit))
        self.simulator = self.machine.simulator(seed, exact=not count)

    def _native(self, circuit: Circuit) -> Circuit:
        """Return a circuit of one-qubit gates in the machine's own."""
        if self.machine is None or not self.machine.device.gates:
            return circuit
        from qcomp.passmanager import Context
        from qcomp.registry import load

        to_basis = load("passes", "to-basis")(gates=self.machine.device.gates)
        native = to_basis.run(circuit, Context())
        assert isinstance(native, Circuit)
        return native

    def _results(self, circuits: Sequence[Circuit], **options: object) -> Any:
        return self._submit([circuit.to_qiskit() for circuit in circuits], **options)

    def _submit(self, circuits: list[Any], **options: object) -> Any:
        if self.machine is not None:
            circuits = [self.machine.ready(circuit) for circuit in circuits]
        result = self.simulator.run(circuits, **options).result()
        if not result.success:
            raise UsageError("qiskit-aer could not run the circuit", why=str(result.status))
        return result

    def _memory(self, circuits: Sequence[Circuit], shots: int) -> list[NDArray[np.uint8]]:
        """Return the classical bits of each shot, uint8[shots, num_clbits] each, bit 0 first."""
        result = self._results(circuits, shots=shots, memory=True)
        out = []
        for k in range(len(circuits)):
            text = "".join(result.get_memory(k)).replace(" ", "")
            flat = np.frombuffer(text.encode("ascii"), dtype=np.uint8) - ord("0")
            out.append(np.ascontiguousarray(flat.reshape(shots, -1)[:, ::-1]))
        return out

    # --- expectation values ----------------------------------------------------------------

    def values(
        self, circuit: Circuit, observables: tuple[Observable, ...], mitigate: bool
    ) -> NDArray[np.float64]:
        """Return expectation values, float64[B, K], of the circuit or a folded one."""
        if self.count and mitigate:
            return self._corrected(circuit, observables)
        if self.count:
            return self.sampled(circuit, observables)[0]
        from qiskit.quantum_info import SparsePauliOp

        wires = range(circuit.num_qubits)
        operators = [
            SparsePauliOp.from_sparse_list(
                [("".join(p for _, p in term), [q for q, _ in term], c) for c, term in o.terms],
                circuit.num_qubits,
            )
            for o in observables
        ]
        theirs = []
        for row in self.rows:
            bound = circuit.bind(row.tolist()).to_qiskit()
            bound.remove_final_measurements()
            for k, operator in enumerate(operators):
                bound.save_expectation_value(operator, wires, label=f"e{k}")
            theirs.append(bound)
        result = self._submit(theirs)
        data = [result.data(b) for b in range(len(theirs))]
        return np.array([[np.real(d[f"e{k}"]) for k in range(len(operators))] for d in data])

    def sampled(self, circuit: Circuit, observables: tuple[Observable, ...]) -> tuple[Rows, Rows]:
        """Return means over shots and their standard errors, float64[B, K] each."""
        groups, bits = self._groups(circuit, observables)
        found = [g.values(b) for g, b in zip(groups, bits, strict=True)]
        own = [b[:, :, list(g.qubits)] for g, b in zip(groups, bits, strict=True)]
        count = len(observables)
        return combine(groups, found, count), grouped_errors(groups, own, count)

    def _corrected(self, circuit: Circuit, observables: tuple[Observable, ...]) -> Rows:
        """Return means over shots without readout errors."""
        groups, bits = self._groups(circuit, observables)
        confusion = self._calibrated(range(circuit.num_qubits))
        found = [confusion.values(g, b) for g, b in zip(groups, bits, strict=True)]
        return combine(groups, found, len(observables))

    def _groups(
        self, circuit: Circuit, observables: tuple[Observable, ...]
    ) -> tuple[Sequence[Group], NDArray[np.uint8]]:
        """Measure each group of products that commute qubit by qubit with all the shots."""
        n = circuit.num_qubits
        groups = group_observables(observables)
        circuits = []
        for group in groups:
            tail = self._native(group.rotate(Circuit(n)))
            rotated = circuit.compose(tail).measure_all()
            circuits += [rotated.bind(row.tolist()) for row in self.rows]
        bits = [m[:, -n:] for m in self._memory(circuits, self.count)]
        return groups, np.array(bits).reshape(len(groups), len(self.rows), self.count, n)

    def _calibrated(self, wires: Sequence[int]) -> Confusion:
        """Return the confusion matrices of wires, from all zeros and all ones."""
        n = self.circuit.num_qubits
        ones = Circuit(n)
        for q in wires:
            ones.x(q)
        low, high = self._memory(
            [Circuit(n).measure_all(), self._native(ones).copy().measure_all()], self.count
        )
        columns = list(wires)
        return Confusion.of_calibration(columns, low[:, columns], high[:, columns])

    # --- bits ------------------------------------------------------------------------------

    def bits(self, readout: Readout, mitigate: bool) -> Array:
        """Measure; of a circuit without measurements its first ``virtual`` qubits."""
        from qcomp.simulate import measures

        shots = self.count or 1
        circuit, whole = self.circuit, self.circuit.num_clbits
        source = {}
        if measures(circuit):
            source = self._sources() if mitigate else {}
        else:
            circuit, whole = circuit.copy().measure_all(), self.virtual
            source = {q: q for q in range(whole)}
        confusion = self._calibrated(sorted(set(source.values()))) if mitigate else None
        results: list[Array] = []
        order = list(readout.order) or list(range(whole))
        memory = self._memory([circuit.bind(row.tolist()) for row in self.rows], shots)
        for bits in memory:
            if readout.kind != "probs":
                picked = bits[:, order]
                results.append(picked[0] if readout.kind == "bits" else picked)
                continue
            weight = np.full(len(bits), 1 / len(bits))
            if confusion is not None:
                bits, weight = _corrected(bits, source, confusion)
            index = bits[:, order].astype(np.int64) @ (1 << np.arange(len(order)))
            results.append(np.bincount(index, weight, minlength=1 << len(order)))
        return np.stack(results)

    def _sources(self) -> dict[int, int]:
        """Return the qubit that each classical bit is measured from at the end.

        Raises:
            UsageError: If the circuit measures before its end: what it reads there decides what it
                does.
        """
        from qcomp.simulate.control_flow import final_measurements
        from qcomp.simulate.readout import measures_inside

        if measures_inside(self.circuit):
            raise UsageError(
                "readout mitigation needs a circuit that measures at its end only",
                why=f"'{self.circuit.name}' measures or resets before it",
            )
        return {bit: qubit for qubit, bit in final_measurements(self.circuit)[1]}


def _corrected(
    bits: NDArray[np.uint8], source: dict[int, int], confusion: Confusion
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Return different bit strings and their probabilities without readout errors."""
    column = {qubit: bit for bit, qubit in source.items()}
    columns = [column[qubit] for qubit in confusion.qubits]
    seen, quasi = confusion.distribution(bits[:, columns])
    out = np.zeros((len(seen), bits.shape[1]), dtype=np.uint8)
    out[:, columns] = seen
    return out, nearest_distribution(quasi)
