"""``QuantumLayer``: a quantum circuit as a PyTorch module."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

import numpy as np
import torch

from qcomp.constructions.encodings import Encoding, in_front
from qcomp.constructions.encodings import encoding as found_encoding
from qcomp.errors import UsageError, suggest
from qcomp.ir.circuit import Circuit
from qcomp.ir.observable import Observable
from qcomp.nn.on_device import OnDevice, run_circuit
from qcomp.nn.op import SEPARATOR, circuit_op, readout_of, remember_circuit
from qcomp.nn.torch_ops import TORCH_OPS
from qcomp.runtime.devices import DEVICES
from qcomp.simulate.exact import unitary_runs

__all__ = ["GRADIENTS", "QuantumLayer"]

GRADIENTS = ("adjoint", "parameter-shift")
"""How a layer's gradient is found."""


class QuantumLayer(torch.nn.Module):
    """A circuit whose parameters are data or trained weights, and whose readout is the output.

    Differentiable in data and weights by the adjoint method or by shifted circuits, for batches of
    any leading shape, and exported to ONNX as one ``ai.qcomp::Circuit`` node with the circuit's
    OpenQASM 3 text.

    Example:
        >>> c = Circuit(2)
        >>> for q in range(2):
        ...     c.ry(Parameter(f"x{q}"), q)
        >>> c.cx(0, 1)
        >>> c.rx(Parameter("w"), 1)
        >>> layer = QuantumLayer(c, inputs=["x0", "x1"], observables=["Z0", "Z0*Z1"])
        >>> layer(torch.zeros(5, 2)).shape
        torch.Size([5, 2])

    Args:
        circuit: A ``Circuit``, OpenQASM 2 or 3 text, or a Qiskit ``QuantumCircuit``; unitary, but
            for measurements at its end, which are ignored.
        inputs: Names of the parameters that are data, in the order of the input's last axis. The
            name of a vector stands for all its elements ``name[i]`` or ``name_i``.
        observables: What is measured, one output each, as ``Observable`` or its text such as
            ``"0.5*Z0*Z1 + X2"``; Z of every qubit when None.
        probs: Give the distribution over all basis states, [..., 2^n], instead.
        weights: First values of the other parameters, in the circuit's order; drawn uniformly
            from [-pi, pi] when None.
        shots: Shots of each row in ``forward`` and in the exported node; 0 for exact values.
        seed: Seed of the shots.
        gradient: "adjoint", that of the exact values, or "parameter-shift", that of shifted
            circuits on the device, with its shots and its noise.
        device: Where the circuit runs in ``forward``, a name that ``--device`` takes; the built-in
            simulator by default.
        noise: Machine whose noise there is, for a device that has any, such as "FakeTorino" with
            "aer".
        name: Name of the circuit in the exported model; the circuit's own by default.
        dtype: Of the weights; torch's default by default.
        encoding: Data encoding in front of the circuit, in the place of ``inputs``: a name of
            ``qcomp.constructions.encodings`` for as many features as fit, or what its
            ``encoding(name, qubits, features, ...)`` returns. Its weights are trained, too.

    Attributes:
        weight: The trained weights, [W], in the order of ``weight_names``.
        encoding: What is in front of the circuit; None for nothing.
        encoding_weight: The weights that angles are computed from before the circuit, in the order
            of ``encoding.weights``; None where there are none.
        in_features: Size of the input's last axis.
        input_names: The data parameters, in order; with an encoding what it computes for them.
        weight_names: The other parameters, in order.
        circuit: The circuit, its parameters being ``input_names`` and then ``weight_names``.
        qasm: Its OpenQASM 3 text.

    Raises:
        UsageError: If a name is unknown, the circuit is not unitary, or a size does not fit.
    """

    def __init__(
        self,
        circuit: object,
        inputs: Sequence[str] = (),
        observables: Sequence[Observable | str] | None = None,
        *,
        probs: bool = False,
        weights: Sequence[float] | np.ndarray | torch.Tensor | None = None,
        shots: int = 0,
        seed: int = 0,
        gradient: str = "adjoint",
        device: str = "sim",
        noise: str | None = None,
        name: str | None = None,
        dtype: torch.dtype | None = None,
        encoding: str | Encoding | None = None,
    ) -> None:
        super().__init__()
        if probs and observables is not None:
            raise UsageError("a layer gives observables or probs, not both")
        if shots < 0:
            raise UsageError(f"the number of shots must not be negative, not {shots}")
        _check_choice("gradient", gradient, GRADIENTS)
        _check_choice("device", device, DEVICES)
        source = _as_circuit(circuit)
        self.encoding = _as_encoding(encoding, source.num_qubits, inputs)
        read: tuple[str, ...] = ()
        if self.encoding is not None:
            source, names = in_front(self.encoding, source, "x")
            made = self.encoding.slot_map
            inputs = names[: made.slots if made else len(self.encoding.features)]
            read = self.encoding.weights[: made.weights if made else 0]
        unitary_runs(source, "a QuantumLayer")
        self.input_names = _data_names(source, inputs)
        taken = set(self.input_names)
        self.weight_names = tuple(p for p in source.params if p not in taken)
        self.circuit = _with_order(source, (*self.input_names, *self.weight_names))
        if name is not None:
            self.circuit.name = name
        if not self.circuit.params:
            raise UsageError(
                "a QuantumLayer needs a circuit with parameters",
                why=f"'{self.circuit.name}' has none, so its output is a constant",
            )
        self.kind = "probs" if probs else "expval"
        self.observables = () if probs else _observable_texts(observables, source.num_qubits)
        self.shots = shots
        self.seed = seed
        self.gradient = gradient
        self.device = device
        self.noise = noise
        self._calls = 0
        self.qasm = self.circuit.to_qasm3()
        remember_circuit(self.qasm, self.circuit)
        self.weight = torch.nn.Parameter(_first_weights(weights, self.weight_names, dtype))
        first = torch.nn.Parameter(_first_weights(None, read, dtype)) if read else None
        self.register_parameter("encoding_weight", first)

    @property
    def out_features(self) -> int:
        """Size of the output's last axis."""
        return 1 << self.circuit.num_qubits if self.kind == "probs" else len(self.observables)

    @property
    def in_features(self) -> int:
        """Size of the input's last axis."""
        return len(self.encoding.features if self.encoding else self.input_names)

    def forward(self, data: torch.Tensor | None = None) -> torch.Tensor:
        """Return the readout.

        Args:
            data: Floating point [..., D], D being ``in_features``; none for a layer without data.

        Returns:
            Tensor[..., K], K the number of observables, or 2^n for probs.

        Raises:
            UsageError: If the data's last axis has another size, or it is no floating point.
        """
        tensors = []
        if self.input_names:
            if data is None:
                raise UsageError(f"the layer takes data of {len(self.input_names)} parameters")
            names = self.encoding.features if self.encoding else self.input_names
            if data.shape[-1] != len(names) or not data.is_floating_point():
                raise UsageError(
                    f"the layer takes floating point [..., {len(names)}], "
                    f"not {data.dtype} {list(data.shape)}",
                    hint="data parameters in order: " + ", ".join(names[:12]),
                )
            tensors.append(self._slots(data))
        elif data is not None:
            raise UsageError("the layer has no data parameters, so it takes no data")
        if self.weight_names:
            tensors.append(self.weight)
        plain = self.gradient == "adjoint" and self.device == "sim" and self.noise is None
        if not plain and not torch.compiler.is_compiling():  # an export holds the circuit alone
            return run_circuit(self._call(), tensors)
        return circuit_op(
            tensors,
            self.circuit.name,
            self.qasm,
            self.kind,
            SEPARATOR.join(self.observables),
            self.shots,
            self.seed,
        )

    def _slots(self, data: torch.Tensor) -> torch.Tensor:
        """Return what the circuit's data parameters are for rows of features."""
        if self.encoding is None or self.encoding.slot_map is None:
            return data
        slots: torch.Tensor = self.encoding.slot_map.compute(TORCH_OPS, data, self.encoding_weight)
        return slots

    def _call(self) -> OnDevice:
        """Return what this call runs; every call with shots draws anew."""
        self._calls += 1
        seed = np.random.SeedSequence((self.seed, self._calls)).generate_state(1)
        readout = readout_of(self.kind, SEPARATOR.join(self.observables), self.shots)
        return OnDevice(
            self.circuit,
            readout,
            self.device,
            self.noise,
            int(seed[0]) >> 2,
            self.gradient == "parameter-shift",
        )

    def extra_repr(self) -> str:
        """Return the layer's sizes for printing."""
        return (
            f"circuit={self.circuit.name!r}, qubits={self.circuit.num_qubits}, "
            f"inputs={len(self.input_names)}, weights={len(self.weight_names)}, "
            f"out={self.out_features}"
        )


def _check_choice(what: str, given: str, known: Iterable[str]) -> None:
    if given not in known:
        raise UsageError(f"there is no {what} named '{given}'", hint=suggest(given, known))


def _as_circuit(source: object) -> Circuit:
    if isinstance(source, Circuit):
        return source
    if isinstance(source, str):
        return Circuit.from_qasm(source)
    if any(base.__module__.partition(".")[0] == "qiskit" for base in type(source).__mro__):
        return Circuit.from_qiskit(source)
    raise UsageError(
        f"a QuantumLayer is not made from a {type(source).__name__}",
        hint="give a qcomp Circuit, OpenQASM text, or a Qiskit QuantumCircuit",
    )


def _as_encoding(
    given: str | Encoding | None, num_qubits: int, inputs: Sequence[str]
) -> Encoding | None:
    if given is None:
        return None
    if inputs:
        raise UsageError(
            "a QuantumLayer with an encoding takes no names of inputs",
            why="the encoding's features are the input",
            hint="leave data gates out of the circuit, or leave the encoding out",
        )
    found = found_encoding(given, num_qubits) if isinstance(given, str) else given
    if found.circuit.num_qubits > num_qubits:
        raise UsageError(
            f"the encoding '{found.method}' has {found.circuit.num_qubits} qubits, the circuit "
            f"{num_qubits}",
            hint=f"encoding('{found.method}', {num_qubits})",
        )
    return found


def _data_names(circuit: Circuit, inputs: Sequence[str]) -> tuple[str, ...]:
    """Return the data parameters, names of vectors replaced by their elements."""
    if isinstance(inputs, str):
        inputs = [inputs]
    out: list[str] = []
    for name in inputs:
        if name in circuit.params:
            out.append(name)
            continue
        pattern = re.compile(re.escape(name) + r"(?:\[(\d+)\]|_(\d+))")
        elements = []
        for param in circuit.params:
            match = pattern.fullmatch(param)
            if match:
                elements.append((int(match[1] or match[2]), param))
        if not elements:
            raise UsageError(
                f"circuit '{circuit.name}' has no parameter '{name}'",
                hint=suggest(name, circuit.params),
            )
        out.extend(param for _, param in sorted(elements))
    if len(set(out)) < len(out):
        raise UsageError(f"a data parameter is named twice: {', '.join(out)}")
    return tuple(out)


def _with_order(circuit: Circuit, names: tuple[str, ...]) -> Circuit:
    """Return the circuit with its parameters in another order."""
    column = {name: i for i, name in enumerate(names)}
    moved = np.array([column[name] for name in circuit.params], dtype=np.int32)
    out = circuit.copy(forms=circuit.forms.remap(moved))
    out.params = names
    return out


def _observable_texts(
    observables: Sequence[Observable | str] | None, num_qubits: int
) -> tuple[str, ...]:
    if observables is None:
        observables = [f"Z{q}" for q in range(num_qubits)]
    if not observables:
        raise UsageError("a QuantumLayer needs at least one observable")
    parsed = [Observable.parse(o) if isinstance(o, str) else o for o in observables]
    for observable in parsed:
        for _, factors in observable.terms:
            for qubit, _ in factors:
                if qubit >= num_qubits:
                    raise UsageError(
                        f"observable '{observable}' acts on qubit {qubit}",
                        why=f"the circuit has qubits 0 .. {num_qubits - 1}",
                    )
    return tuple(str(observable) for observable in parsed)


def _first_weights(
    weights: Sequence[float] | np.ndarray | torch.Tensor | None,
    names: tuple[str, ...],
    dtype: torch.dtype | None,
) -> torch.Tensor:
    kind = torch.get_default_dtype() if dtype is None else dtype
    if weights is None:
        return torch.empty(len(names), dtype=kind).uniform_(-math.pi, math.pi)
    values = torch.as_tensor(np.asarray(weights)).to(kind).clone()
    if values.shape != (len(names),):
        raise UsageError(
            f"the circuit has {len(names)} weights, the values given have shape "
            f"{list(values.shape)}",
            hint="weights in order: " + ", ".join(names[:12]),
        )
    return values
