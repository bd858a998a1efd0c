"""The provider ``braket``: Amazon Braket's machines, simulators and emulators, by its own client.

=======================  ===================================================================
``--device``             what runs
=======================  ===================================================================
``local``, ``local-dm``  ``LocalSimulator``, exact states or density matrices, on this computer
a file ``NAME.json``     ``LocalEmulator``: a machine's properties, as its ``AwsDevice`` gives
                         them, made into its native gates, couplings and noise, on this computer
``Garnet``               the machine of that name in ``braket_devices.toml``
``arn:aws:braket:...``   any machine or simulator
=======================  ===================================================================

The text that is sent is OpenQASM in the profile of the artifact's target, so what was mapped goes
in a verbatim box. Each row is one task. AWS finds the credentials where its tools keep them.
"""

from __future__ import annotations

import functools
import logging
import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import TargetError, UsageError, suggest
from qcomp.ir.circuit import Circuit
from qcomp.simulate.control_flow import final_measurements
from qcomp.submit.patience import causes
from qcomp.submit.provider import Batch, Estimate, Machine, Piece, State, Trouble
from qcomp.submit.record import redacted
from qcomp.submit.settings import Setting

__all__ = ["BraketProvider", "devices"]

Bits = NDArray[np.uint8]
LOCAL = {"local": "braket_sv", "local-dm": "braket_dm"}
"""Name -> backend of the local simulator."""

ATTEMPTS = 8
"""How often AWS's own client tries a request, with its own back-off between."""

_ACCOUNT = (
    "sign in as AWS says: 'aws configure sso' or 'aws configure', then 'aws sso login' where a "
    "session expired, and a region that has Braket; qcomp never sees the keys"
)
_CREDENTIALS = frozenset(
    "ExpiredToken ExpiredTokenException UnrecognizedClientException InvalidClientTokenId "
    "InvalidSignatureException SignatureDoesNotMatch AccessDenied AccessDeniedException "
    "MissingAuthenticationToken IncompleteSignature RequestExpired NoCredentialsError "
    "PartialCredentialsError NoRegionError ProfileNotFound TokenRetrievalError SSOTokenLoadError "
    "UnauthorizedSSOTokenError CredentialRetrievalError".split()
)
_PASSING = frozenset(
    "ThrottlingException Throttling TooManyRequestsException RequestTimeout "
    "InternalServiceException InternalServerError ServiceUnavailable SlowDown "
    "EndpointConnectionError ConnectTimeoutError ReadTimeoutError ConnectionClosedError "
    "ConnectionError ProxyConnectionError HTTPClientError".split()
)
_STAGES = {
    "CREATED": "queued",
    "QUEUED": "queued",
    "RUNNING": "running",
    "CANCELLING": "running",
    "COMPLETED": "done",
    "FAILED": "failed",
    "CANCELLED": "cancelled",
}


@functools.cache
def devices() -> Mapping[str, Any]:
    """Return ``braket_devices.toml``: machines and published prices."""
    path = files("qcomp.submit").joinpath("braket_devices.toml")
    return tomllib.loads(path.read_text(encoding="utf-8"))


class BraketProvider:
    """Amazon Braket."""

    def connect(self, device: str, *, offline: bool = False) -> Machine:
        """Return a machine by its name or ARN.

        Raises:
            UsageError: If the client is not installed or there is no such machine.
        """
        if device in LOCAL:
            return _Local(device, LOCAL[device])
        if device.endswith(".json"):
            return _Local(device, "braket_dm", Path(device))
        return _Remote(device, arn_of(device), offline=offline)

    def explain(self, error: Exception) -> Trouble:
        """Say what an exception of the client means."""
        return _explain(error)


def arn_of(device: str) -> str:
    """Return the ARN of a machine's name; an ARN is its own.

    Raises:
        UsageError: If the name is unknown.
    """
    if device.startswith("arn:"):
        return device
    known = {arn.rpartition("/")[2]: arn for arn in devices()["devices"]}
    for name, arn in known.items():
        if name.lower() == device.lower():
            return str(arn)
    raise UsageError(
        f"there is no device '{device}'",
        hint=suggest(device, [*LOCAL, *known]) + " An ARN and a file of properties work too.",
    )


class _Braket:
    """What the local and the remote machines share."""

    def __init__(self, name: str) -> None:
        self.name = name

    def check(self, settings: Sequence[Setting]) -> None:
        """Write every circuit once: what Braket cannot say is refused here.

        Raises:
            TargetError: If a circuit measures in between or has control flow.
        """
        for setting in settings:
            _wires(setting)
            _text(_first_row(setting), setting.profile)

    def explain(self, error: Exception) -> Trouble:
        """Say what an exception of the client means."""
        return _explain(error)


class _Local(_Braket):
    lasting = False
    interval = 0.0

    def __init__(self, name: str, backend: str, properties: Path | None = None) -> None:
        super().__init__(name)
        self._batches: dict[str, Batch] = {}
        self._emulates = properties is not None
        self._device = _emulator(properties, backend) if properties else _simulator(backend)

    def check(self, settings: Sequence[Setting]) -> None:
        """Write every circuit, and hold it to the emulated machine's gates and couplings.

        Raises:
            TargetError: If Braket cannot say a circuit, or the machine cannot run it.
        """
        super().check(settings)
        if not self._emulates:
            return
        for setting in settings:
            try:
                self._device.transform(self._specification(_first_row(setting), setting.profile))
            except Exception as error:  # the emulator's passes share no base class
                raise TargetError(
                    f"{Path(self.name).stem} cannot run the circuit '{setting.name}'",
                    why=redacted(str(error)),
                    hint="compile it for the machine's own target and device",
                ) from None

    def split(self, settings: Sequence[Setting]) -> list[tuple[Piece, ...]]:
        """Return tasks of one setting and a few rows."""
        from qcomp.submit.local import in_this_process

        return in_this_process(settings)

    def estimate(self, settings: Sequence[Setting], tasks: int) -> Estimate:
        """Return nothing: it costs no money."""
        return Estimate(0.0, "USD", None, ("it runs on this computer",))

    def send(self, batch: Batch) -> str:
        """Keep the task; it runs when its results are asked for."""
        self._batches[batch.token] = batch
        return batch.token

    def find(self, token: str) -> str | None:
        """Return the token if this process holds the task."""
        return token if token in self._batches else None

    def state(self, identifier: str) -> State:
        """Return ``done``: the results can be asked for; ``lost`` in another process."""
        return State("done" if identifier in self._batches else "lost")

    def results(self, identifier: str, batch: Batch) -> list[Bits]:
        """Run the task; Amazon's simulator takes no seed."""
        return [self._setting(setting) for setting in batch.settings]

    def cancel(self, identifier: str) -> None:
        """Forget the task."""
        self._batches.pop(identifier, None)

    def _setting(self, setting: Setting) -> Bits:
        out = []
        for row in setting.rows:
            circuit = setting.circuit.bind(row.tolist())
            task = self._device.run(
                self._specification(circuit, setting.profile), shots=setting.shots
            )
            out.append(_bits(task.result(), setting))
        return np.stack(out)

    def _specification(self, circuit: Circuit, profile: str) -> Any:  # noqa: ANN401  a Program or a Circuit
        if not self._emulates:
            return _program(circuit, profile)
        from braket.circuits import Circuit as BraketCircuit

        return BraketCircuit.from_ir(_text(circuit, profile))


class _Remote(_Braket):
    lasting = True
    interval = 2.0

    def __init__(self, name: str, arn: str, *, offline: bool = False) -> None:
        super().__init__(name)
        self._arn = arn
        self._token = ""
        self._device: Any = None
        self._session: Any = None
        if not offline:
            self._open()

    def _open(self) -> None:
        from boto3 import Session
        from botocore.config import Config
        from braket.aws import AwsDevice, AwsSession

        region = self._arn.split(":")[3] or None
        config = Config(retries={"mode": "standard", "total_max_attempts": ATTEMPTS})
        self._session = AwsSession(boto_session=Session(region_name=region), config=config)
        self._session.braket_client.meta.events.register(
            "provide-client-params.braket.CreateQuantumTask", self._with_token
        )
        try:
            self._device = AwsDevice(self._arn, aws_session=self._session)
        except ValueError as error:
            if "not found" not in str(error):
                raise
            known = [arn.rpartition("/")[2] for arn in devices()["devices"]]
            raise UsageError(
                f"there is no device '{self._arn}'",
                hint=suggest(self._arn.rpartition("/")[2], known),
            ) from None

    def _with_token(self, params: dict[str, Any], **_: object) -> dict[str, Any]:
        """Name the task ourselves: AWS makes one task of two requests with one token."""
        return {**params, "clientToken": self._token} if self._token else params

    def split(self, settings: Sequence[Setting]) -> list[tuple[Piece, ...]]:
        """Return one task a row: a task of Braket is one circuit."""
        return [
            (Piece(number, row, row + 1),)
            for number, setting in enumerate(settings)
            for row in range(len(setting.rows))
        ]

    def estimate(self, settings: Sequence[Setting], tasks: int) -> Estimate:
        """Return the published price: so much a task, so much a shot."""
        known = devices()
        entry = known["devices"].get(self._arn, {})
        unchecked = "nothing was checked against the machine: Amazon does that when a task arrives"
        notes = [f"prices of {known['source']} as read on {known['read']}, without discounts"]
        if "per_shot" not in entry:
            title = entry.get("title", self._arn)
            missing = f"no price per shot is known here of {title}"
            return Estimate(None, "", None, (missing, unchecked))
        shots = sum(len(setting.rows) * setting.shots for setting in settings)
        price = known["per_task"] * tasks + entry["per_shot"] * shots
        notes.append(f"{known['per_task']} a task and {entry['per_shot']} a shot")
        return Estimate(price, known["currency"], None, (*notes, unchecked))

    def send(self, batch: Batch) -> str:
        """Create the task under the batch's token; a second time, AWS gives the same one back."""
        (setting,) = batch.settings
        self._token = batch.token
        try:
            task = self._device.run(
                _program(_first_row(setting), setting.profile),
                shots=setting.shots,
                tags={"qcomp": batch.token},
            )
        finally:
            self._token = ""
        return str(task.id)

    def find(self, token: str) -> str | None:
        """Return None: sending under the same token finds the task."""
        return None

    def state(self, identifier: str) -> State:
        """Ask for the state of a task."""
        try:
            task = self._task(identifier)
            stage: Any = _STAGES.get(task.state(), "running")
        except Exception as error:
            if _code(error) == "ResourceNotFoundException":
                return State("lost")
            raise
        metadata = task.metadata(use_cached_value=True)
        note = ""
        if stage == "failed":
            note = redacted(str(metadata.get("failureReason", "AWS does not say why")))
        elif stage == "queued" and "queueInfo" in metadata:
            note = f"place {metadata['queueInfo'].get('position')} in the queue"
        return State(stage, note)

    def results(self, identifier: str, batch: Batch) -> list[Bits]:
        """Read the results of a task that is done."""
        (setting,) = batch.settings
        return [_bits(self._task(identifier).result(), setting)[None]]

    def cancel(self, identifier: str) -> None:
        """Cancel a task."""
        self._task(identifier).cancel()

    def _task(self, identifier: str) -> Any:  # noqa: ANN401
        from braket.aws import AwsQuantumTask

        return AwsQuantumTask(identifier, aws_session=self._session, logger=_silent())


# --- circuits -----------------------------------------------------------------------------


def _first_row(setting: Setting) -> Circuit:
    row = setting.rows[0] if len(setting.rows) else np.zeros(setting.circuit.num_params)
    return setting.circuit.bind(row.tolist())


def _text(circuit: Circuit, profile: str) -> str:
    """Return the text that is sent: in the target's profile if it is one of Braket's."""
    from qcomp.registry import load

    ours = profile if profile.startswith("braket") else "braket"
    return str(load("services", "write-qasm")(circuit, ours))


def _program(circuit: Circuit, profile: str) -> Any:  # noqa: ANN401
    from braket.ir.openqasm import Program

    return Program(source=_text(circuit, profile))


def _wires(setting: Setting) -> dict[int, int]:
    """Return bit -> qubit of a circuit that measures at its end alone.

    Raises:
        TargetError: If it measures in between, or does not write a bit.
    """
    _, final = final_measurements(setting.circuit)
    wires = {clbit: qubit for qubit, clbit in final}
    count = setting.circuit.stats().measurements
    if len(final) != count or len(set(wires.values())) != count:
        raise TargetError(
            f"the circuit '{setting.name}' measures before its end",
            why="Amazon Braket's tasks measure once, at the end",
            hint="submit it to ibm, or run it in the simulator: qcomp run",
        )
    return wires


def _bits(result: Any, setting: Setting) -> Bits:  # noqa: ANN401
    """Return uint8[shots, bits]; bits that nothing is measured into are 0."""
    found = np.asarray(result.measurements, dtype=np.uint8)
    column = {int(qubit): place for place, qubit in enumerate(result.measured_qubits)}
    out = np.zeros((len(found), setting.circuit.num_clbits), dtype=np.uint8)
    for clbit, qubit in _wires(setting).items():
        out[:, clbit] = found[:, column[qubit]]
    return out


# --- the client ---------------------------------------------------------------------------


def _simulator(backend: str) -> Any:  # noqa: ANN401
    from braket.devices import LocalSimulator

    return LocalSimulator(backend=backend)


def _emulator(path: Path, backend: str) -> Any:  # noqa: ANN401
    from braket.emulation.local_emulator import LocalEmulator

    try:
        return LocalEmulator.from_json(path.read_text(encoding="utf-8"), backend=backend)
    except FileNotFoundError as error:
        raise UsageError(
            f"there is no file '{path}'",
            hint="write one: AwsDevice(arn).properties.json() in Python",
        ) from error
    except Exception as error:  # the schema's own errors
        raise UsageError(
            f"'{path}' holds no properties of a device of Amazon Braket",
            why=redacted(str(error)),
            hint="write it anew: AwsDevice(arn).properties.json() in Python",
        ) from None


def _silent() -> logging.Logger:
    """Return a logger for what the client says of each task: we say it ourselves."""
    logger = logging.getLogger("qcomp.submit.braket")
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return logger


def _code(error: BaseException) -> str:
    """Return AWS's code of an error, or the name of its class."""
    response = getattr(error, "response", None)
    code = response.get("Error", {}).get("Code", "") if isinstance(response, dict) else ""
    return str(code) or type(error).__name__


def _explain(error: Exception) -> Trouble:
    codes: list[str] = []
    for link in causes(error):
        codes += [_code(link), *(base.__name__ for base in type(link).__mro__)]
    if any(code in _CREDENTIALS for code in codes):
        return Trouble("credentials", f"AWS does not accept the credentials: {codes[0]}", _ACCOUNT)
    if any(code in _PASSING for code in codes):
        hint = "check the network, and AWS's status"
        return Trouble("transient", f"Amazon Braket cannot be reached: {codes[0]}", hint)
    if "DeviceOfflineException" in codes or "DeviceRetiredException" in codes:
        return Trouble("refused", f"the device does not take tasks: {codes[0]}", "try another one")
    if "ServiceQuotaExceededException" in codes:
        hint = "wait for tasks to end, or ask AWS for a larger quota"
        return Trouble("refused", "the account has too many tasks", hint)
    return Trouble("refused", f"Amazon Braket refuses: {codes[0]}: {redacted(str(error))}")
