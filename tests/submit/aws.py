"""Amazon's side of the wire for tests: the real client signs and sends, this answers.

Requests of every new client of boto3 end here, before a connection is opened.
"""

from __future__ import annotations

import io
import json
import urllib.parse
from dataclasses import dataclass, field
from typing import Any

import numpy as np

REGION = "eu-north-1"
ARN = f"arn:aws:braket:{REGION}::device/qpu/iqm/Garnet"


def header(name: str) -> dict[str, str]:
    return {"name": f"braket.device_schema.{name}", "version": "1"}


def capabilities(qubits: tuple[int, ...], pairs: tuple[tuple[int, int], ...]) -> dict[str, Any]:
    """Return properties of a device of IQM's kind, as ``AwsDevice.properties`` has them."""
    one = {
        str(q): {
            "T1": {"value": 3e-5, "unit": "S"},
            "T2": {"value": 2e-5, "unit": "S"},
            "oneQubitFidelity": [
                {"fidelityType": {"name": kind}, "fidelity": value}
                for kind, value in (("RANDOMIZED_BENCHMARKING", 0.999), ("READOUT", 0.98))
            ],
        }
        for q in qubits
    }
    two = {
        f"{a}-{b}": {
            "twoQubitGateFidelity": [
                {
                    "direction": None,
                    "gateName": "CZ",
                    "fidelity": 0.99,
                    "fidelityType": {"name": "INTERLEAVED_RANDOMIZED_BENCHMARKING"},
                }
            ]
        }
        for a, b in pairs
    }
    graph = {str(q): [str(b if a == q else a) for a, b in pairs if q in (a, b)] for q in qubits}
    program = "braket.ir.openqasm.program"
    result = {"name": "Probability", "minShots": 1, "maxShots": 20_000}
    return {
        "braketSchemaHeader": header("iqm.iqm_device_capabilities"),
        "service": {
            "braketSchemaHeader": header("device_service_properties"),
            "executionWindows": [
                {
                    "executionDay": "Everyday",
                    "windowStartHour": "00:00",
                    "windowEndHour": "23:59:59",
                }
            ],
            "shotsRange": [1, 20_000],
        },
        "action": {
            program: {
                "actionType": program,
                "version": ["1"],
                "supportedOperations": ["prx", "cz"],
                "supportedResultTypes": [result],
            }
        },
        "paradigm": {
            "braketSchemaHeader": header("gate_model_qpu_paradigm_properties"),
            "qubitCount": len(qubits),
            "nativeGateSet": ["prx", "cz"],
            "connectivity": {"fullyConnected": False, "connectivityGraph": graph},
        },
        "deviceParameters": {},
        "provider": None,
        "standardized": {
            "braketSchemaHeader": header("standardized_gate_model_qpu_device_properties"),
            "oneQubitProperties": one,
            "twoQubitProperties": two,
        },
    }


@dataclass
class Aws:
    """The service: tasks by token, and what goes wrong.

    Attributes:
        tasks: Token -> the request that made the task.
        requests: (operation, body) of every request.
        faults: Operation -> what its next answers are: an exception to raise, (status, code) of an
            error, ``lost`` to take the request and lose the answer, or a state that is told.
        failure: Why tasks fail.
    """

    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: list[tuple[str, Any]] = field(default_factory=list)
    faults: dict[str, list[Any]] = field(default_factory=dict)
    failure: str = "the fridge was warm"

    def __call__(self, request: Any, event_name: str = "", **_: object) -> Any:
        operation = event_name.rpartition(".")[2]
        body = json.loads(request.body) if operation == "CreateQuantumTask" else None
        self.requests.append((operation, body))
        waiting = self.faults.get(operation) or [None]
        self.faults[operation] = waiting[1:]
        fault = waiting[0]
        if isinstance(fault, Exception):
            raise fault
        if isinstance(fault, tuple):
            status, code = fault
            return answer(request, status, {"message": "no"}, {"x-amzn-errortype": code})
        data = getattr(self, f"_{operation}")(request.url, body, fault)
        if fault == "lost":
            from botocore.exceptions import ConnectionClosedError

            raise ConnectionClosedError(endpoint_url=request.url)
        return answer(request, 200, data)

    def _GetDevice(self, url: str, body: Any, fault: Any) -> Any:
        return {
            "deviceArn": ARN,
            "deviceName": "Garnet",
            "deviceStatus": "ONLINE",
            "deviceType": "QPU",
            "providerName": "IQM",
            "deviceCapabilities": json.dumps(capabilities((0, 1, 2), ((0, 1), (1, 2)))),
        }

    def _CreateQuantumTask(self, url: str, body: Any, fault: Any) -> Any:
        self.tasks.setdefault(body["clientToken"], body)
        number = list(self.tasks).index(body["clientToken"])
        return {"quantumTaskArn": f"arn:aws:braket:{REGION}:123456789012:quantum-task/{number}"}

    def _GetQuantumTask(self, url: str, body: Any, fault: Any) -> Any:
        path = urllib.parse.unquote(urllib.parse.urlsplit(url).path)
        arn = path.partition("/quantum-task/")[2]
        number = arn.rpartition("/")[2]
        data = {
            "quantumTaskArn": arn,
            "status": fault or "COMPLETED",
            "deviceArn": ARN,
            "deviceParameters": "{}",
            "shots": self._request(number)["shots"],
            "outputS3Bucket": "bucket",
            "outputS3Directory": f"tasks/{number}",
            "createdAt": "2026-01-01T00:00:00Z",
            "actionMetadata": {"actionType": "braket.ir.openqasm.program"},
            "queueInfo": {
                "queue": "QUANTUM_TASKS_QUEUE",
                "position": "7",
                "queuePriority": "Normal",
            },
        }
        return {**data, "failureReason": self.failure} if fault == "FAILED" else data

    def _CancelQuantumTask(self, url: str, body: Any, fault: Any) -> Any:
        return {"quantumTaskArn": url, "cancellationStatus": "CANCELLING"}

    def _GetObject(self, url: str, body: Any, fault: Any) -> Any:
        """Run the text that was sent and return Braket's own form of the result."""
        from braket.devices import LocalSimulator
        from braket.ir.openqasm import Program

        number = url.partition("/tasks/")[2].partition("/")[0]
        request = self._request(number)
        program = Program.parse_raw(request["action"])
        found = LocalSimulator().run(program, shots=request["shots"]).result()
        return {
            "braketSchemaHeader": {
                "name": "braket.task_result.gate_model_task_result",
                "version": "1",
            },
            "measurements": np.asarray(found.measurements).tolist(),
            "measuredQubits": list(found.measured_qubits),
            "taskMetadata": {
                "braketSchemaHeader": {"name": "braket.task_result.task_metadata", "version": "1"},
                "id": number,
                "shots": request["shots"],
                "deviceId": ARN,
            },
            "additionalMetadata": {"action": json.loads(request["action"])},
        }

    def _request(self, number: str) -> dict[str, Any]:
        return list(self.tasks.values())[int(number)]


def answer(request: Any, status: int, data: Any, extra: dict[str, str] | None = None) -> Any:
    from botocore.awsrequest import AWSResponse

    headers = {"content-type": "application/json", **(extra or {})}
    return AWSResponse(request.url, status, headers, Raw(json.dumps(data).encode()))


class Raw(io.BytesIO):
    """A body as urllib3 gives it."""

    def stream(self, amount: int = 65536, **_: object) -> Any:
        yield self.read()
