"""torchquantum: a ``QuantumModule`` as a module on the operator ``qcomp::circuit``.

The module's own ``forward`` runs, in the export too, with another meaning of torchquantum's
primitives: a gate on a ``QuantumDevice`` is written down with its angles, and an expectation value
is one call of the operator on what was written. So layers, encoders and functions of torchquantum,
whichever they are, need no forms of their own; angles stay torch expressions of inputs and weights.
Wire i is qubit i. Values are float32, as torchquantum's are.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from qcomp import registry
from qcomp.errors import SourceError
from qcomp.frontends.hybrid_layers import twin
from qcomp.frontends.torchquantum_gates import GATES, Gate, circuit_text, gate_text
from qcomp.ir.circuit import Circuit

__all__ = ["capture_quantum_module"]

_LETTERS = {"PauliX": "X", "PauliY": "Y", "PauliZ": "Z", "I": "I"}
_ANGLES_HINT = "encode data by angles, such as tq.GeneralEncoder does"
_READ_HINT = "tq.MeasureAll, tq.expval and tq.expval_joint_analytical are taken"
_RECORDED = "qcomp_recorded"


def capture_quantum_module(
    layer: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> torch.nn.Module:
    """Return what takes the place of a ``QuantumModule``: same call, same weights, same values.

    Args:
        layer: A module whose ``forward`` takes tensors, makes a device and reads it.
        args: Example positional arguments.
        kwargs: Example keyword arguments.

    Raises:
        SourceError: If its circuits are not static, noisy, or have what is no gate of ``GATES``.
    """
    tq: Any = sys.modules["torchquantum"]
    kind = type(layer).__name__
    if any(isinstance(value, tq.QuantumDevice) for value in (*args, *kwargs.values())):
        raise SourceError(
            f"{kind} is called with a QuantumDevice, so it is a part of a circuit only",
            hint="derive the module that makes the device and measures it from "
            "torchquantum.QuantumModule, in the place of torch.nn.Module",
        )
    _refuse_modes(layer)
    new = _copied(layer, {}, tq)
    circuits = _Circuits(tq, new)
    own = type(layer).forward

    def forward(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  the module's own
        with circuits.recording():
            return own(new, *args, **kwargs)

    attributes: dict[str, Any] = vars(new)
    attributes["forward"] = forward
    forward(*args, **kwargs)
    circuits.known = True
    if not circuits.plans:
        raise SourceError(f"{kind} reads no expectation value of a QuantumDevice", hint=_READ_HINT)
    attributes["structure"] = "\n".join(f"{p.text}\n{p.observables}" for p in circuits.plans)
    return new


@dataclasses.dataclass
class _Plan:
    """One circuit of a module, the same in every run.

    Attributes:
        text: Its OpenQASM text as written down.
        name: Its name.
        program: Its text for the operator.
        observables: What is read of it.
        weights: Of each tensor of angles, in order: whether it has no batch axis.
    """

    text: str
    name: str
    program: str
    observables: str
    weights: tuple[bool, ...]


class _State:
    """What ``device.states`` is while gates are written down: it can be cloned, nothing else."""

    def __init__(self, gates: Sequence[Gate], rows: Any) -> None:  # noqa: ANN401  int or symbolic
        self.gates, self.rows = tuple(gates), rows

    def clone(self) -> _State:
        return self

    def __getattr__(self, name: str) -> object:
        raise _reads_state(f"states.{name}")

    def __getitem__(self, index: object) -> object:
        raise _reads_state("states[...]")

    @classmethod
    def __torch_function__(cls, function: Any, *args: object, **kwargs: object) -> object:  # noqa: ANN401, PLW3201
        raise _reads_state(getattr(function, "__name__", "a function of torch"))


class _Circuits:
    """The circuits of one module: planned in its first run, and the same in all others."""

    def __init__(self, tq: Any, module: torch.nn.Module) -> None:  # noqa: ANN401
        self.tq, self.module = tq, module
        self.plans: list[_Plan] = []
        self.known = False
        self.number = 0
        self.kept = {id(part) for part in module.modules() if isinstance(part, tq.QuantumDevice)}
        self.parameters = {id(parameter) for parameter in module.parameters()}
        measurement = sys.modules["torchquantum.measurement.measurements"]
        wrapper = sys.modules["torchquantum.functional.gate_wrapper"]
        answers = {
            id(vars(wrapper)["gate_wrapper"]): self.gate,
            id(vars(measurement)["expval"]): self.expval,
            id(vars(measurement)["expval_joint_analytical"]): self.expval_joint,
        }
        self.places: list[tuple[dict[str, Any], str, Any]] = [
            (vars(holder), name, answers[id(value)])
            for holder in list(sys.modules.values())
            if isinstance(holder, types.ModuleType)
            for name, value in list(vars(holder).items())
            if id(value) in answers
        ]

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Let torchquantum's primitives write down what they are called for."""
        self.number = 0
        for part in self.module.modules():
            if id(part) in self.kept:
                vars(part)[_RECORDED] = None
        device, operator = self.tq.QuantumDevice, self.tq.Operator
        methods: list[tuple[Any, str, Any]] = [
            (device, "__init__", _begin),
            (device, "reset_states", _reset),
            (device, "states", property(_states, _set_states)),
            *((device, name, _refusing_state(name)) for name in _STATE_METHODS),
            (operator, "forward", _operate),
        ]
        before = [(kind, name, vars(kind).get(name)) for kind, name, _ in methods]
        functions = [(holder, name, holder[name]) for holder, name, _ in self.places]
        try:
            for kind, name, method in methods:
                setattr(kind, name, method)
            for holder, name, function in self.places:
                holder[name] = function
            yield
        finally:
            for holder, name, function in functions:
                holder[name] = function
            for kind, name, method in before:
                if method is None:
                    delattr(kind, name)
                else:
                    setattr(kind, name, method)
            self._drop_devices()

    def _drop_devices(self) -> None:
        """Forget devices that the run has left as attributes of the module's parts."""
        for part in list(self.module.modules()):
            for name, child in list(part._modules.items()):
                if isinstance(child, self.tq.QuantumDevice) and id(child) not in self.kept:
                    del part._modules[name]
                    vars(part)[name] = None

    def gate(
        self,
        name: str,
        mat: object,
        method: object,
        q_device: Any,  # noqa: ANN401
        wires: Any,  # noqa: ANN401
        params: Any = None,  # noqa: ANN401
        n_wires: object = None,
        static: bool = False,
        parent_graph: object = None,
        inverse: bool = False,
    ) -> None:
        """Stand for torchquantum's ``gate_wrapper``, through which all of its gates go."""
        if static:
            raise _static_mode()
        angles: torch.Tensor | list[str]
        if params is None or name not in GATES:
            angles = []
        elif isinstance(params, torch.Tensor):
            angles = params if params.is_floating_point() else params.float()
            angles = angles.reshape(1, 1) if angles.dim() == 0 else angles
            angles = angles.unsqueeze(-1) if angles.dim() == 1 else angles
            self._check_registered(name, params)
        else:
            angles = [repr(float(v)) for v in torch.as_tensor(params).flatten().tolist()]
        on = [wires] if isinstance(wires, int) else wires
        found = Gate(name, tuple(int(wire) for wire in on), angles, bool(inverse))
        count = angles.shape[-1] if isinstance(angles, torch.Tensor) else len(angles)
        gate_text(name, ["0"] * int(count), found.wires, inverse=found.inverse)
        gates = _gates_of(q_device)
        if not all(0 <= wire < q_device.n_wires for wire in found.wires):
            raise SourceError(
                f"the operation '{name}' is on wires {list(found.wires)} of a device of "
                f"{q_device.n_wires} wires"
            )
        gates.append(found)

    def _check_registered(self, name: str, params: torch.Tensor) -> None:
        if self.known or not isinstance(params, torch.nn.Parameter):
            return
        if id(params) not in self.parameters:
            raise SourceError(
                f"a weight of the operation '{name}' is no parameter of the module",
                why="it would become a constant",
                hint="keep operations in a tq.QuantumModuleList or as attributes",
            )

    def expval(self, qdev: Any, wires: Any, observables: Any) -> torch.Tensor:  # noqa: ANN401
        """Stand for ``tq.expval``: a column for each wire; the device is left rotated."""
        if isinstance(wires, int):
            wires, observables = [wires], [observables]
        wires = [int(wire) for wire in wires]
        letters = [_letter(observable) for observable in observables]
        if len(set(wires)) < len(wires) and set(letters) & {"X", "Y"}:
            raise SourceError("tq.expval reads one wire twice, in rotated bases", hint=_READ_HINT)
        texts = [
            f"{letter}{wire}" if letter != "I" else ""
            for wire, letter in zip(wires, letters, strict=True)
        ]
        values = self._read(qdev, texts)
        for wire, observable in zip(wires, observables, strict=True):
            for rotation in observable.diagonalizing_gates():
                rotation(qdev, wires=wire)
        return values

    def expval_joint(self, qdev: Any, observable: str) -> torch.Tensor:  # noqa: ANN401
        """Stand for ``tq.expval_joint_analytical``: one letter for each wire."""
        letters = observable.upper()
        if len(letters) != qdev.n_wires or set(letters) - set("IXYZ"):
            raise SourceError(
                f"'{observable}' is no product of Paulis on {qdev.n_wires} wires", hint=_READ_HINT
            )
        product = "*".join(f"{p}{wire}" for wire, p in enumerate(letters) if p != "I")
        return self._read(qdev, [product])[..., 0]

    def _read(self, qdev: Any, observables: Sequence[str]) -> torch.Tensor:  # noqa: ANN401
        """Return expectation values, float32[rows, K]; an empty text is the identity."""
        gates, rows = _gates_of(qdev), vars(qdev)["bsz"]
        texts = list(dict.fromkeys(text for text in observables if text))
        if not texts:
            return torch.ones(rows, len(observables))
        tensors = [gate.angles for gate in gates if isinstance(gate.angles, torch.Tensor)]
        plan = self._plan(gates, tensors, int(qdev.n_wires), ";".join(texts), rows)
        data = [t for t, weight in zip(tensors, plan.weights, strict=True) if not weight]
        fixed = [t.flatten() for t, weight in zip(tensors, plan.weights, strict=True) if weight]
        inputs = []
        if data:
            full = [t.expand(rows, -1) if t.shape[0] == 1 else t for t in data]
            inputs.append(torch.cat(full, dim=-1))
        if fixed:
            inputs.append(torch.cat(fixed))
        values: torch.Tensor = torch.ops.qcomp.circuit(
            inputs, plan.name, plan.program, "expval", plan.observables, 0, 0
        )
        values = values.to(torch.float32)
        if not data:
            values = values.expand(rows, -1)
        if texts == list(observables):
            return values
        ones = torch.ones_like(values[..., 0])
        columns = [values[..., texts.index(text)] if text else ones for text in observables]
        return torch.stack(columns, dim=-1)

    def _plan(
        self,
        gates: Sequence[Gate],
        tensors: Sequence[torch.Tensor],
        num_wires: int,
        observables: str,
        rows: Any,  # noqa: ANN401
    ) -> _Plan:
        """Return the plan of the circuit that is read now, made in the first run."""
        number, self.number = self.number, self.number + 1
        if self.known:
            plan = self.plans[number] if number < len(self.plans) else None
            if plan is None or len(plan.weights) != len(tensors):
                raise _changed(self.module)
            text = circuit_text(gates, plan.weights, num_wires)
            if text != plan.text or observables != plan.observables:
                raise _changed(self.module)
            return plan
        weights = tuple(
            t.shape[0] == 1 and (rows != 1 or id(t) in self.parameters) for t in tensors
        )
        if not tensors:
            raise SourceError(
                "a circuit of torchquantum has no parameters, so its output is a constant",
                hint="put the constant in the module in its place",
            )
        text = circuit_text(gates, weights, num_wires)
        circuit = Circuit.from_qasm(text)
        program = circuit.to_qasm3()
        registry.load("services", "remember-circuit")(program, circuit)
        plan = _Plan(text, circuit.name, program, observables, weights)
        self.plans.append(plan)
        return plan


# --- what stands for torchquantum's methods ------------------------------------------------

_STATE_METHODS = (
    "set_states",
    "reset_identity_states",
    "reset_all_eq_states",
    "get_states_1d",
    "get_state_1d",
)


def _begin(
    self: Any,  # noqa: ANN401  a QuantumDevice
    n_wires: int,
    device_name: str = "default",
    bsz: Any = 1,  # noqa: ANN401  int or symbolic
    device: object = "cpu",
    record_op: bool = False,
) -> None:
    torch.nn.Module.__init__(self)
    self.n_wires, self.bsz = n_wires, bsz
    self.device_name, self.device = device_name, device
    self.record_op, self.op_history = record_op, []
    self.state = None
    vars(self)[_RECORDED] = []


def _reset(self: Any, bsz: Any) -> None:  # noqa: ANN401
    vars(self).update({"bsz": bsz, _RECORDED: []})


def _states(self: Any) -> _State:  # noqa: ANN401
    return _State(_gates_of(self), vars(self)["bsz"])


def _set_states(self: Any, value: object) -> None:  # noqa: ANN401
    if not isinstance(value, _State):
        raise SourceError(
            "the state vector of a QuantumDevice is set", why="no gates make it", hint=_ANGLES_HINT
        )
    vars(self).update({"bsz": value.rows, _RECORDED: list(value.gates)})


def _refusing_state(name: str) -> Callable[..., None]:
    def method(self: Any, *args: object, **kwargs: object) -> None:  # noqa: ANN401
        raise _reads_state(name)

    return method


def _operate(
    self: Any,  # noqa: ANN401  an Operator
    q_device: object,
    wires: Any = None,  # noqa: ANN401
    params: object = None,
    inverse: bool | None = None,
) -> None:
    if self.static_mode:
        raise _static_mode()
    if inverse is not None:
        self.inverse = inverse
    if wires is not None:
        self.wires = [wires] if isinstance(wires, int) else wires
    options = {} if self.n_wires is None else {"n_wires": self.n_wires}
    angles = self.params if params is None else params
    if angles is not None:
        options["params"] = angles
    self.func(q_device, self.wires, inverse=self.inverse, **options)


def _gates_of(device: Any) -> list[Gate]:  # noqa: ANN401
    gates: list[Gate] | None = vars(device).get(_RECORDED)
    if gates is None:
        kind = type(device).__name__
        if _RECORDED in vars(device):
            raise SourceError(
                f"a {kind} is kept by the module and used without reset_states()",
                why="its state would pass from one call to the next",
                hint="make the device in forward, or call reset_states(x.shape[0]) first",
            )
        raise SourceError(
            f"a gate acts on a {kind} that forward has not made, or that is no QuantumDevice",
            hint="make a tq.QuantumDevice in forward",
        )
    return gates


def _letter(observable: object) -> str:
    kind = type(observable).__name__
    if kind not in _LETTERS:
        raise SourceError(
            f"the observable '{kind}' of torchquantum cannot be captured",
            hint=f"these can: {', '.join(_LETTERS)}",
        )
    return _LETTERS[kind]


def _refuse_modes(layer: torch.nn.Module) -> None:
    """Refuse noise models, static mode and quantized angles, in any part of a module."""
    for name, part in layer.named_modules():
        where = f"'{name}' ({type(part).__name__})" if name else f"the {type(part).__name__}"
        noise = getattr(part, "noise_model_tq", None)
        if noise is not None:
            raise SourceError(
                f"{where} has the noise model {type(noise).__name__}",
                hint="set_noise_model_tq(None); qcomp adds a machine's noise by its own devices",
            )
        if getattr(part, "static_mode", False):
            raise _static_mode()
        if getattr(part, "clifford_quantization", False):
            raise SourceError(
                f"{where} quantizes its angles (clifford_quantization)",
                hint="set it to False; qcomp rounds angles itself (docs/hybrid.md)",
            )


def _static_mode() -> SourceError:
    return SourceError(
        "the static mode of torchquantum is on", hint="call static_off(); qcomp fuses gates itself"
    )


def _reads_state(name: str) -> SourceError:
    return SourceError(
        f"the state vector of a QuantumDevice is used by '{name}'",
        why="a machine has no state vector to read or set",
        hint=f"{_READ_HINT}; {_ANGLES_HINT}",
    )


def _changed(module: torch.nn.Module) -> SourceError:
    return SourceError(
        "the circuit's structure depends on data",
        where=f"quantum layer {type(module).__name__}",
        why="another run of forward gives other gates",
        hint="let the data choose angles, not gates: a rotation by 0 is no gate",
    )


def _copied(
    part: torch.nn.Module,
    copies: dict[int, torch.nn.Module],
    tq: Any,  # noqa: ANN401
) -> torch.nn.Module:
    """Return a copy of a module and its parts that shares their ``Parameter`` objects."""
    if id(part) not in copies:
        copies[id(part)] = new = twin(part)
        attributes: dict[str, Any] = vars(new)
        own: Mapping[str, Any] = vars(part)
        bound = own.get("forward")
        if bound is not None:
            rebind = inspect.ismethod(bound) and bound.__self__ is part
            attributes["forward"] = types.MethodType(bound.__func__, new) if rebind else bound
        if isinstance(part, tq.QuantumDevice):
            attributes["_buffers"] = {}
            attributes["state"] = None
            attributes.pop("_states", None)
        for name, child in part._modules.items():
            if child is not None:
                new._modules[name] = _copied(child, copies, tq)
    return copies[id(part)]
