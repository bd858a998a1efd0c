"""The torch operator ``qcomp::circuit``: a Circuit node that runs and differentiates in torch.

The circuit travels as its OpenQASM 3 text, so that a saved ``ExportedProgram`` holds all it needs.
Values are computed in float64 whatever the dtype of the inputs; the gradient is the adjoint
method's (:mod:`qcomp.simulate.gradients`). The readout's shots, where asked for, are drawn with a
fixed seed, and the gradient stays that of the exact result.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit
from qcomp.ir.observable import Observable
from qcomp.ir.program import Readout
from qcomp.simulate import (
    expectation_gradients,
    measures,
    probability_gradients,
    run_readout,
)
from qcomp.simulate.control_flow import final_measurements
from qcomp.simulate.distinct import on_distinct_rows

__all__ = [
    "SEPARATOR",
    "batch_of",
    "circuit_of_text",
    "circuit_op",
    "dtype_of",
    "readout_of",
    "remember_circuit",
    "rows_of",
]

SEPARATOR = ";"
"""Between the texts of observables, which an operator can only take as one string."""

_known: dict[str, Circuit] = {}

Rows = np.ndarray[Any, np.dtype[np.float64]]


def remember_circuit(text: str, circuit: Circuit) -> None:
    """Let ``text`` stand for ``circuit`` in this process, so that it need not be read again."""
    _known[text] = circuit


def circuit_of_text(text: str) -> Circuit:
    """Return the circuit of an OpenQASM 3 text."""
    circuit = _known.get(text)
    if circuit is None:
        circuit = Circuit.from_qasm(text)
        _known[text] = circuit
    return circuit


@functools.lru_cache(maxsize=256)
def readout_of(kind: str, observables: str, shots: int) -> Readout:
    """Return the readout that the operator's arguments state."""
    texts = observables.split(SEPARATOR) if observables else ()
    parsed = tuple(Observable.parse(text) for text in texts)
    if kind == "probs":
        return Readout("probs", (), shots)
    if kind == "samples":
        return Readout("samples", (), shots)
    return Readout("expval", parsed, shots)


def batch_of(inputs: Sequence[torch.Tensor]) -> tuple[Any, ...]:
    """Return the batch shape that the inputs broadcast to."""
    return tuple(torch.broadcast_shapes(*(tensor.shape[:-1] for tensor in inputs)))


def rows_of(inputs: Sequence[torch.Tensor]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the inputs side by side as rows of parameters, float64[B, P]."""
    lead = batch_of(inputs)
    parts = [
        tensor.detach().to("cpu", torch.float64).expand(*lead, tensor.shape[-1])
        for tensor in inputs
    ]
    joined = torch.cat(parts, dim=-1)
    return joined.reshape(math.prod(lead), joined.shape[-1]).contiguous().numpy()


def dtype_of(inputs: Sequence[torch.Tensor]) -> torch.dtype:
    """Return the dtype of the result."""
    return functools.reduce(torch.promote_types, (tensor.dtype for tensor in inputs))


def _width(text: str, kind: str, observables: str) -> int:
    """Return the size of the result's last axis."""
    if kind == "expval":
        return len(observables.split(SEPARATOR))
    if kind in ("probs", "samples"):
        circuit = circuit_of_text(text)
        bits = circuit.num_clbits if measures(circuit) else circuit.num_qubits
        return 1 << bits if kind == "probs" else bits
    raise UsageError(f"a torch layer reads 'expval', 'probs' or 'samples', not '{kind}'")


def _shape(text: str, kind: str, observables: str, shots: int) -> tuple[int, ...]:
    """Return the shape of a row's result."""
    width = _width(text, kind, observables)
    return (shots, width) if kind == "samples" else (width,)


def _by_state(circuit: Circuit, weight: Rows) -> Rows:
    """Return the cotangent of each basis state from that of the bits it is measured as."""
    _, final = final_measurements(circuit)
    if not final:
        return weight
    states = np.arange(1 << circuit.num_qubits)
    outcomes = np.zeros_like(states)
    for qubit, bit in final:
        outcomes = outcomes & ~(1 << bit) | (states >> qubit & 1) << bit
    return weight[:, outcomes]


@torch.library.custom_op("qcomp::circuit", mutates_args=())
def circuit_op(
    inputs: Sequence[torch.Tensor],
    circuit: str,
    qasm: str,
    kind: str,
    observables: str,
    shots: int,
    seed: int,
) -> torch.Tensor:
    """Return the readout of a circuit for each row of parameters.

    Args:
        inputs: Floating-point tensors [..., P_i]; side by side on the last axis they are the
            circuit's parameters in order, their leading axes broadcast.
        circuit: The circuit's name.
        qasm: Its OpenQASM 3 text.
        kind: "expval", "probs" (of the measured bits, or of all qubits), or "samples".
        observables: Texts of the observables, joined by ``SEPARATOR``.
        shots: Shots of each row; 0 for the exact result.
        seed: Seed of the shots.

    Returns:
        Tensor[..., K], of samples Tensor[..., shots, bits], of the inputs' dtype.
    """
    readout = readout_of(kind, observables, shots)
    target = circuit_of_text(qasm)

    def run(rows: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, Any]:
        return run_readout(target, readout, rows, seed=seed)

    rows = rows_of(inputs)
    values = run(rows) if shots else on_distinct_rows(rows, run)
    out = torch.from_numpy(np.ascontiguousarray(values))
    return out.reshape(*batch_of(inputs), *values.shape[1:]).to(inputs[0].device, dtype_of(inputs))


@circuit_op.register_fake
def _(
    inputs: Sequence[torch.Tensor],
    circuit: str,
    qasm: str,
    kind: str,
    observables: str,
    shots: int,
    seed: int,
) -> torch.Tensor:
    shape = (*batch_of(inputs), *_shape(qasm, kind, observables, shots))
    return torch.empty(shape, dtype=dtype_of(inputs), device=inputs[0].device)


@torch.library.custom_op("qcomp::circuit_gradient", mutates_args=())
def circuit_gradient_op(
    inputs: Sequence[torch.Tensor],
    cotangent: torch.Tensor,
    qasm: str,
    kind: str,
    observables: str,
) -> torch.Tensor:
    """Return the gradient in the parameters, Tensor[..., P], batch axes not yet summed.

    Args:
        inputs: As of :func:`circuit_op`.
        cotangent: Gradient in its result, Tensor[..., K].
        qasm: As of :func:`circuit_op`.
        kind: As of :func:`circuit_op`.
        observables: As of :func:`circuit_op`.
    """
    target = circuit_of_text(qasm)
    rows = rows_of(inputs)
    lead = batch_of(inputs)
    weight = cotangent.detach().to("cpu", torch.float64)
    weight = weight.expand(*lead, weight.shape[-1]).reshape(len(rows), weight.shape[-1]).numpy()
    if kind == "expval":
        parsed = readout_of(kind, observables, 0).observables
        gradient = expectation_gradients(target, rows, parsed, weight)
    else:
        gradient = probability_gradients(target, rows, _by_state(target, weight))
    out = torch.from_numpy(np.ascontiguousarray(gradient))
    return out.reshape(*lead, rows.shape[1]).to(inputs[0].device, dtype_of(inputs))


@circuit_gradient_op.register_fake
def _(
    inputs: Sequence[torch.Tensor],
    cotangent: torch.Tensor,
    qasm: str,
    kind: str,
    observables: str,
) -> torch.Tensor:
    width = sum(tensor.shape[-1] for tensor in inputs)
    return torch.empty((*batch_of(inputs), width), dtype=dtype_of(inputs), device=inputs[0].device)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:  # noqa: ANN401
    tensors, _, qasm, kind, observables, _, _ = inputs
    ctx.save_for_backward(*tensors)
    ctx.arguments = (qasm, kind, observables)
    if kind == "samples":
        ctx.mark_non_differentiable(output)


def _backward(ctx: Any, cotangent: torch.Tensor) -> tuple[Any, ...]:  # noqa: ANN401
    tensors = list(ctx.saved_tensors)
    gradient = circuit_gradient_op(tensors, cotangent, *ctx.arguments)
    shares = []
    start = 0
    for tensor in tensors:
        share = gradient.narrow(-1, start, tensor.shape[-1])
        shares.append(share.sum_to_size(tensor.shape).to(tensor.dtype))
        start += tensor.shape[-1]
    return (shares, None, None, None, None, None, None)


circuit_op.register_autograd(_backward, setup_context=_setup_context)
