"""The provider ``ibm``: IBM's machines and their fake twins, through ``qiskit-ibm-runtime``.

``--device fake_torino`` and every other name of ``qiskit_ibm_runtime.fake_provider`` run here, in
the client's local mode, with the calibration data that IBM published of the machine. Every other
name is asked of the service; the client finds the account where its own ``save_account`` put it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import TargetError, UsageError, suggest
from qcomp.ir.observable import Observable
from qcomp.submit.patience import causes
from qcomp.submit.provider import Batch, Estimate, Machine, Piece, State, Trouble
from qcomp.submit.record import redacted
from qcomp.submit.settings import Setting

if TYPE_CHECKING:
    from qiskit import QuantumCircuit

__all__ = ["IbmMachine", "IbmProvider", "circuit_seconds", "isa_faults"]

Bits = NDArray[np.uint8]

MOST_EXECUTIONS = 5_000_000
"""Circuits times shots that one job may have; IBM's guide "Job limits", read in November 2026."""

MOST_TWO_QUBIT = 10_000
"""Two-qubit gates that one job may always have; the same guide."""

OVERHEAD = 2.0
"""Seconds that a job takes beside its circuits; IBM's guide "Workload usage", November 2026."""

REP_DELAY = 250e-6
"""Seconds between two shots where the device does not say; the same guide."""

_ACCOUNT = (
    "set the account up as IBM says, once: QiskitRuntimeService.save_account(...) in Python, or "
    "the client's environment variables; qcomp never sees the key"
)
_STAGES = {
    "INITIALIZING": "queued",
    "QUEUED": "queued",
    "RUNNING": "running",
    "DONE": "done",
    "ERROR": "failed",
    "CANCELLED": "cancelled",
}


class IbmProvider:
    """IBM Quantum."""

    def connect(self, device: str, *, offline: bool = False) -> Machine:
        """Return a machine by its name.

        Raises:
            UsageError: If the client is not installed or there is no such machine.
        """
        fakes = _fakes()
        if device in fakes:
            return IbmMachine(device, _fake(device))
        if device.startswith("fake"):
            raise UsageError(f"there is no device '{device}'", hint=suggest(device, fakes))
        if offline:
            twin = "fake_" + device.removeprefix("ibm_")
            return IbmMachine(device, fakes[twin]() if twin in fakes else None, offline=True)
        from qiskit.providers.exceptions import QiskitBackendNotFoundError
        from qiskit_ibm_runtime import QiskitRuntimeService

        service = QiskitRuntimeService()
        try:
            return IbmMachine(device, service.backend(device), service)
        except QiskitBackendNotFoundError:
            names = [backend.name for backend in service.backends()]
            raise UsageError(
                f"there is no device '{device}' in this account", hint=suggest(device, names)
            ) from None

    def explain(self, error: Exception) -> Trouble:
        """Say what an exception of the client means."""
        return _explain(error)


class IbmMachine:
    """One machine, real or fake."""

    interval = 2.0

    def __init__(
        self,
        name: str,
        backend: Any,  # noqa: ANN401  the client has no types here
        service: Any = None,  # noqa: ANN401
        *,
        offline: bool = False,
    ) -> None:
        self.name, self._backend, self._service = name, backend, service
        self._offline = offline
        self.lasting = service is not None
        if not self.lasting:
            self.interval = 0.2
        self._jobs: dict[str, Any] = {}

    # --- before it is sent ---------------------------------------------------------------

    def check(self, settings: Sequence[Setting]) -> None:
        """Hold every circuit to the machine's target (its ISA).

        Raises:
            TargetError: With every kind of gate that the machine has not, or not there.
        """
        if self._backend is None or self._offline:
            return
        self._take_fractional(settings)
        target, faults = self._backend.target, []
        for setting in settings:
            wide = setting.circuit.num_qubits
            if wide > target.num_qubits:
                raise TargetError(
                    f"the circuit '{setting.name}' has {wide} qubits, "
                    f"{self.name} has {target.num_qubits}",
                    hint=f"compile for it (--device {self.name}), or choose a larger device",
                )
            found = isa_faults(setting.circuit.to_qiskit(), target)
            faults += [f"{setting.name}: {fault}" for fault in found]
        if faults:
            more = f" and {len(faults) - 8} more" if len(faults) > 8 else ""
            raise TargetError(
                f"{self.name} cannot run this artifact as it is",
                why="; ".join(faults[:8]) + more,
                hint=f"compile it for the machine: -t ibm-heron --device {self.name} "
                "(the target of its family)",
            )

    def _take_fractional(self, settings: Sequence[Setting]) -> None:
        """Ask for the fractional gates of a real machine where the circuits have them."""
        if self._service is None or "rzz" in self._backend.target.operation_names:
            return
        from qcomp.ir.gates import G

        codes = {code for s in settings for run in s.circuit.runs() for code in set(run.code)}
        if codes & {G.RZZ, G.RX}:
            self._backend = self._service.backend(self.name, use_fractional_gates=True)

    def split(self, settings: Sequence[Setting]) -> list[tuple[Piece, ...]]:
        """Return tasks of one number of shots, as large as IBM takes them."""
        groups: dict[int, list[tuple[Piece, ...]]] = {}
        room: dict[int, tuple[int, int]] = {}
        for number, setting in enumerate(settings):
            tasks = groups.setdefault(setting.shots, [])
            gates = max(1, setting.circuit.stats().two_qubit)
            step = max(1, MOST_EXECUTIONS // setting.shots)
            for start in range(0, len(setting.rows), step):
                stop = min(start + step, len(setting.rows))
                runs = (stop - start) * setting.shots
                left_runs, left_gates = room.get(setting.shots, (0, 0))
                if not tasks or runs > left_runs or gates > left_gates:
                    tasks.append(())
                    left_runs, left_gates = MOST_EXECUTIONS, MOST_TWO_QUBIT
                tasks[-1] = (*tasks[-1], Piece(number, start, stop))
                room[setting.shots] = (left_runs - runs, left_gates - gates)
        return [task for tasks in groups.values() for task in tasks]

    def estimate(self, settings: Sequence[Setting], tasks: int) -> Estimate:
        """Return seconds: 2 a task, and (delay between shots + circuit) for each shot."""
        if not self.lasting and not self._offline:
            return Estimate(0.0, "USD", None, ("it runs on this computer",))
        notes = [
            "2 s a job + (delay between shots + length of the circuit) x executions, IBM's guide "
            "'Workload usage'",
            "the price depends on your plan",
        ]
        if self._backend is None:
            notes.append("circuits are taken as 100 us long: nothing is known of the device here")
        elif self._offline:
            notes.append(f"gate times of {self._backend.name}, nothing was checked against it")
        delay = getattr(self._backend, "default_rep_delay", None) or REP_DELAY
        seconds = OVERHEAD * tasks
        for setting in settings:
            length = 100e-6
            if self._backend is not None:
                length = circuit_seconds(setting.circuit.to_qiskit(), self._backend.target)
            seconds += (delay + length) * len(setting.rows) * setting.shots
        return Estimate(None, "", seconds, tuple(notes))

    # --- tasks ---------------------------------------------------------------------------

    def expectations(
        self, setting: Setting, observables: Sequence[Observable], seed: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return expectation values and their standard errors, float64[B, K] each.

        All rows and observables go to ``EstimatorV2`` as the arrays of one PUB.

        Args:
            setting: The circuit in the machine's own gates, without measurements; its rows; the
                shots that the precision asked for stands for.
            observables: On the circuit's qubits.
            seed: Seed for a simulator.
        """
        from qiskit.quantum_info import SparsePauliOp
        from qiskit_ibm_runtime import EstimatorV2

        circuit = setting.circuit
        operators = [
            SparsePauliOp.from_sparse_list(
                [("".join(p for _, p in word), [q for q, _ in word], c) for c, word in o.terms],
                circuit.num_qubits,
            )
            for o in observables
        ]
        options: dict[str, Any] = {}
        if self._service is None:
            options["simulator"] = {"seed_simulator": seed}
        estimator = EstimatorV2(mode=self._backend, options=options)
        names = _free(setting)
        columns = [circuit.params.index(name) for name in names]
        rows = setting.rows[:, columns] if names else setting.rows[:1, :0]
        values = {names: rows} if names else None
        pub = (circuit.to_qiskit(), [[operator] for operator in operators], values)
        answer = estimator.run([pub], precision=1 / np.sqrt(setting.shots)).result()[0]
        shape = (len(operators), len(setting.rows))
        found = [
            np.broadcast_to(np.asarray(a), shape).T for a in (answer.data.evs, answer.data.stds)
        ]
        return np.array(found[0], dtype=np.float64), np.array(found[1], dtype=np.float64)

    def send(self, batch: Batch) -> str:
        """Hand the circuits to a sampler; rows of parameters go with their circuit."""
        from qiskit_ibm_runtime import SamplerV2

        options: dict[str, Any] = {"environment": {"job_tags": [batch.token]}}
        if self._service is None:
            options["simulator"] = {"seed_simulator": batch.seed}
        sampler = SamplerV2(mode=self._backend, options=options)
        pubs = [pub for setting in batch.settings for pub in _pubs(setting)]
        job = sampler.run(pubs, shots=batch.settings[0].shots)
        identifier = str(job.job_id()) if self._service is not None else batch.token
        self._jobs[identifier] = job
        return identifier

    def find(self, token: str) -> str | None:
        """Return the job that carries the token as its tag."""
        if self._service is None:
            return token if token in self._jobs else None
        found = self._service.jobs(job_tags=[token], limit=1)
        return str(found[0].job_id()) if found else None

    def state(self, identifier: str) -> State:
        """Ask for the state of a job."""
        from qiskit_ibm_runtime.exceptions import RuntimeJobNotFound

        try:
            job = self._job(identifier)
        except (RuntimeJobNotFound, LookupError):
            return State("lost")
        status = job.status()
        name = str(getattr(status, "name", status))
        stage: Any = _STAGES.get(name, "running")
        note = ""
        if stage == "failed":
            note = redacted(str(_reason(job) or "the service does not say why"))
        return State(stage, note)

    def results(self, identifier: str, batch: Batch) -> list[Bits]:
        """Return the bits of a job that is done."""
        answers = iter(self._job(identifier).result())
        out = []
        for setting in batch.settings:
            parts = [_bits(next(answers), setting) for _ in range(_pub_count(setting))]
            out.append(np.concatenate(parts))
        return out

    def cancel(self, identifier: str) -> None:
        """Cancel a job; one that is over already is left as it is."""
        from qiskit_ibm_runtime.exceptions import RuntimeInvalidStateError

        try:
            self._job(identifier).cancel()
        except (RuntimeInvalidStateError, LookupError):
            return

    def explain(self, error: Exception) -> Trouble:
        """Say what an exception of the client means."""
        return _explain(error)

    def _job(self, identifier: str) -> Any:  # noqa: ANN401
        if identifier not in self._jobs:
            if self._service is None:
                raise LookupError(identifier)
            self._jobs[identifier] = self._service.job(identifier)
        return self._jobs[identifier]


# --- circuits -----------------------------------------------------------------------------


def isa_faults(circuit: QuantumCircuit, target: Any) -> list[str]:  # noqa: ANN401
    """Return what of a Qiskit circuit a target has not, one text for each gate and qubits."""
    faults: dict[str, int] = {}
    for name, qubits in _instructions(circuit, range(circuit.num_qubits)):
        if name == "barrier" or target.instruction_supported(name, qubits):
            continue
        if name not in target.operation_names:
            text = f"it has no gate '{name}'"
        else:
            text = f"'{name}' is not coupled on qubits {', '.join(map(str, qubits))}"
        faults[text] = faults.get(text, 0) + 1
    return [f"{text} ({count} times)" if count > 1 else text for text, count in faults.items()]


def _instructions(
    circuit: QuantumCircuit, wires: Sequence[int]
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Give name and qubits of every instruction, those in bodies of control flow too."""
    place = {bit: wires[index] for index, bit in enumerate(circuit.qubits)}
    for item in circuit.data:
        qubits = tuple(place[bit] for bit in item.qubits)
        blocks = getattr(item.operation, "blocks", ())
        if not blocks:
            yield item.operation.name, qubits
        for block in blocks:
            yield from _instructions(block, qubits)


def circuit_seconds(circuit: QuantumCircuit, target: Any) -> float:  # noqa: ANN401
    """Return the length of a circuit: its longest chain of operations, in seconds.

    Times that the target does not know count as 0; bodies of control flow count once.
    """
    ready = [0.0] * circuit.num_qubits
    for name, qubits in _instructions(circuit, range(circuit.num_qubits)):
        found = target[name].get(qubits) if name in target.operation_names else None
        length = (getattr(found, "duration", None) or 0.0) if found is not None else 0.0
        end = max((ready[q] for q in qubits), default=0.0) + length
        for qubit in qubits:
            ready[qubit] = end
    return max(ready, default=0.0)


def _pub_count(setting: Setting) -> int:
    return 1 if _free(setting) else len(setting.rows)


def _free(setting: Setting) -> tuple[str, ...]:
    """Return the parameters that the circuit's angles really have."""
    used = {p.name for p in setting.circuit.to_qiskit().parameters}
    return tuple(name for name in setting.circuit.params if name in used)


def _pubs(setting: Setting) -> list[tuple[Any, ...]]:
    circuit = setting.circuit.to_qiskit()
    names = _free(setting)
    if not names:
        return [(circuit,)] * len(setting.rows)
    columns = [setting.circuit.params.index(name) for name in names]
    return [(circuit, {names: setting.rows[:, columns]})]


def _bits(answer: Any, setting: Setting) -> Bits:  # noqa: ANN401
    """Return uint8[B, shots, bits] of one answer: registers put where they stand."""
    parts: list[tuple[int, Bits]] = []
    for register in setting.circuit.cregs:
        found = answer.data[register.name]
        bytes_ = np.asarray(found.array)
        bits = np.unpackbits(bytes_, axis=-1)[..., ::-1][..., : found.num_bits]
        parts.append((register.start, bits.reshape(-1, *bits.shape[-2:])))
    parts.sort(key=lambda part: part[0])
    return np.concatenate([bits for _, bits in parts], axis=-1)


# --- the client ---------------------------------------------------------------------------


@functools.cache
def _fakes() -> Mapping[str, Any]:
    """Return the classes of the fake backends by the backend's name; none is made."""
    from qiskit_ibm_runtime import fake_provider

    classes = [c for c in vars(fake_provider).values() if isinstance(c, type)]
    named = ((getattr(c, "backend_name", None), c) for c in classes)
    return {str(name): c for name, c in sorted(named, key=lambda n: str(n[0])) if name}


@functools.cache
def _fake(name: str) -> Any:  # noqa: ANN401
    """Return a fake backend; its noise model takes seconds to make, and is kept."""
    return _fakes()[name]()


def _reason(job: Any) -> str | None:  # noqa: ANN401
    if hasattr(job, "error_message"):
        message = job.error_message()
        return None if message is None else str(message)
    try:  # a job of the local mode keeps the exception itself
        job.result()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def _explain(error: Exception) -> Trouble:
    names = {type(link).__name__ for link in causes(error)}
    codes = {int(getattr(link, "status_code", 0) or 0) for link in causes(error)}
    if names & {"AccountNotFoundError", "InvalidAccountError", "IBMNotAuthorizedError"} or (
        codes & {401, 403}
    ):
        return Trouble("credentials", "IBM does not accept the account", _ACCOUNT)
    if "ApiException" in names and codes & {400}:
        return Trouble("credentials", "IBM does not accept the account", _ACCOUNT)
    passing = {"ConnectionError", "Timeout", "ConnectTimeout", "ReadTimeout", "MaxRetryError"}
    if names & passing or any(code in (-1, 429) or code >= 500 for code in codes):
        return Trouble(
            "transient", "IBM's service cannot be reached", "check the network, and IBM's status"
        )
    return Trouble(
        "refused",
        f"IBM's client refuses: {type(error).__name__}: {redacted(str(error))}",
    )
