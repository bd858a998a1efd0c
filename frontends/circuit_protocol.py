"""The protocol ``__qcomp_circuit__``: any module may state its circuit, and is then captured.

::

    def __qcomp_circuit__(self):
        return circuit, angles, readout, output

``circuit``
    A ``Circuit``, OpenQASM text or a Qiskit circuit, with parameters.
``angles(*args, **kwargs)``
    Takes what ``forward`` takes; gives one floating-point tensor [..., P] or a sequence of them,
    side by side on the last axis the circuit's parameters in order. Plain torch code; leading axes
    broadcast. A tensor of weights alone has no batch axis, so that it can be bound when compiling.
``readout``
    A ``Readout``, ``"probs"``, or a sequence of observables such as ``["Z0", "0.5*X0*X1"]``.
``output(values)``
    Makes what ``forward`` returns of the readout's tensor [..., K]; None for the tensor itself.

Nothing of qcomp need be imported by a library that implements it. The method is called on a copy of
the layer that shares its ``Parameter`` objects, so functions that use ``self`` see the weights that
an export or a training step puts there. ``__qcomp_reference__(*args, **kwargs)``, where a layer has
it, gives the exact values that the capture is compared with, in the place of ``forward``.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from qcomp import registry
from qcomp.errors import SourceError, UsageError
from qcomp.frontends.hybrid_layers import PROTOCOL, twin
from qcomp.ir.circuit import Circuit
from qcomp.ir.observable import Observable
from qcomp.ir.program import Readout

__all__ = ["capture_protocol"]

_HINT = "see 'The protocol' in docs/hybrid.md"


def capture_protocol(
    layer: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> torch.nn.Module:
    """Return what takes the place of a layer that states its circuit.

    Args:
        layer: The layer.
        args: Example positional arguments.
        kwargs: Example keyword arguments.

    Raises:
        SourceError: If what it states does not fit together.
    """
    new = twin(layer)
    stated = getattr(new, PROTOCOL)()
    if not isinstance(stated, tuple) or len(stated) != 4:
        raise _wrong(layer, "it must return (circuit, angles, readout, output)")
    circuit = _circuit(layer, stated[0])
    angles, output = stated[1], stated[3]
    if not callable(angles) or not (output is None or callable(output)):
        raise _wrong(layer, "angles must be a function, and output a function or None")
    readout = _readout(layer, stated[2], circuit)
    text = circuit.to_qasm3()
    registry.load("services", "remember-circuit")(text, circuit)
    observables = ";".join(str(observable) for observable in readout.observables)
    shots = [readout.shots]

    def forward(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  the layer's own
        inputs = _inputs(layer, angles(*args, **kwargs), circuit)
        values = torch.ops.qcomp.circuit(
            inputs, circuit.name, text, readout.kind, observables, shots[0], 0
        )
        return values if output is None else output(values)

    # Names of arguments and a dynamic batch axis go by the signature.
    vars(forward)["__signature__"] = inspect.signature(layer.forward)

    @contextlib.contextmanager
    def exact() -> Iterator[None]:
        before, shots[0] = shots[0], 0
        try:
            yield
        finally:
            shots[0] = before

    attributes: dict[str, Any] = vars(new)
    attributes["forward"] = forward
    attributes["exact"] = exact
    attributes["structure"] = f"{text}\n{readout.kind}\n{observables}"
    reference = getattr(layer, "__qcomp_reference__", None)
    if reference is not None:
        attributes["reference"] = reference
    return new


def _wrong(layer: torch.nn.Module, why: str) -> SourceError:
    return SourceError(f"{type(layer).__name__}.{PROTOCOL} cannot be used", why=why, hint=_HINT)


def _circuit(layer: torch.nn.Module, value: object) -> Circuit:
    if isinstance(value, Circuit):
        circuit = value
    elif isinstance(value, str):
        circuit = Circuit.from_qasm(value)
    elif any(base.__module__.partition(".")[0] == "qiskit" for base in type(value).__mro__):
        circuit = Circuit.from_qiskit(value)
    else:
        raise _wrong(layer, f"a {type(value).__name__} is no circuit")
    if not circuit.params:
        raise _wrong(layer, f"the circuit '{circuit.name}' has no parameters")
    return circuit


def _readout(layer: torch.nn.Module, value: object, circuit: Circuit) -> Readout:
    try:
        if isinstance(value, Readout):
            readout = value
        elif value == "probs":
            readout = Readout("probs")
        elif isinstance(value, Sequence) and not isinstance(value, str):
            parsed = [o if isinstance(o, Observable) else Observable.parse(o) for o in value]
            readout = Readout("expval", tuple(parsed))
        else:
            raise _wrong(layer, f"{value!r} is no readout")
    except UsageError as error:
        raise _wrong(layer, str(error)) from error
    if readout.kind not in ("expval", "probs", "samples") or readout.order:
        raise _wrong(layer, f"a layer cannot read '{readout.kind}', or in another order")
    used = {qubit for observable in readout.observables for qubit in observable.qubits}
    if used and max(used) >= circuit.num_qubits:
        raise _wrong(
            layer, f"it reads qubit {max(used)} of a circuit of {circuit.num_qubits} qubits"
        )
    return readout


def _inputs(layer: torch.nn.Module, value: object, circuit: Circuit) -> list[torch.Tensor]:
    tensors = [value] if isinstance(value, torch.Tensor) else list(value)  # type: ignore[call-overload]  # checked below
    if not all(isinstance(t, torch.Tensor) and t.is_floating_point() and t.dim() for t in tensors):
        raise _wrong(layer, "angles must be floating-point tensors [..., P]")
    width = sum(int(tensor.shape[-1]) for tensor in tensors)
    if width != len(circuit.params):
        raise _wrong(
            layer, f"there are {width} angles for {len(circuit.params)} parameters of the circuit"
        )
    return tensors
