"""``CapturedConnector``: what a Qiskit Machine Learning ``TorchConnector`` becomes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit
from qcomp.ir.expressions import Tree, evaluate, grouped
from qcomp.nn.op import SEPARATOR, circuit_op, remember_circuit

__all__ = ["TORCH", "CapturedConnector"]

TORCH: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "pow": torch.pow, "sin": torch.sin, "cos": torch.cos, "tan": torch.tan, "asin": torch.asin,
        "acos": torch.acos, "atan": torch.atan, "exp": torch.exp, "log": torch.log,
        "Abs": torch.abs, "sign": torch.sign,
    }
)  # fmt: skip
"""The functions of :mod:`qcomp.ir.expressions` in torch."""


class CapturedConnector(torch.nn.Module):
    """Angles computed in torch, one circuit, and a fixed matrix behind its readout.

    ``y = readout(circuit(x[inputs], w[weights], f(x, w))) @ output``: the circuit's parameters
    are some of the data, some of the weights, and the values of expressions that are not affine.
    Angles that need expressions are computed in float64, like Qiskit's; the result is float32,
    like that of a ``TorchConnector``, whatever the dtype of the data.

    Args:
        circuit: Its parameters are ``inputs``, then ``weights``, then ``expressions``.
        weight: The connector's own parameter, [W], which stays shared.
        num_inputs: Size of the data's last axis.
        inputs: Which of the data the circuit takes as they are.
        weights: Which of the weights it takes as they are.
        expressions: Over the data (variables 0 .. D-1) and the weights (from D on).
        observables: Texts of the observables; none for the distribution over all basis states.
        output: float64[K, M], what becomes of the readout; None for the readout itself.
        shape: Shape of the output of one row.

    Attributes:
        structure: Text of the circuit and its readout.
    """

    def __init__(
        self,
        circuit: Circuit,
        weight: torch.nn.Parameter,
        num_inputs: int,
        *,
        inputs: Sequence[int],
        weights: Sequence[int],
        expressions: Sequence[Tree] = (),
        observables: Sequence[str] = (),
        output: NDArray[np.float64] | None = None,
        shape: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.weight = weight
        self.num_inputs = num_inputs
        self.inputs = list(inputs)
        self.weights = list(weights)
        self.groups = grouped(expressions)
        members = [index for _, _, group in self.groups for index in group]
        self.circuit = _with_slots_in_order(circuit, len(inputs) + len(weights), members)
        self.observables = tuple(observables)
        self.kind = "expval" if observables else "probs"
        self.shape = tuple(shape)
        self.qasm = self.circuit.to_qasm3()
        self.structure = "\n".join([self.qasm, self.kind, *self.observables])
        remember_circuit(self.qasm, self.circuit)
        self._rounds = True
        matrix = None if output is None else torch.from_numpy(np.ascontiguousarray(output))
        self.register_buffer("output", matrix, persistent=False)

    def forward(self, input_data: torch.Tensor | None = None) -> torch.Tensor:
        """Return the network's output, float32[..., *shape].

        Args:
            input_data: [..., D]; None for a network without data.

        Raises:
            UsageError: If the data's last axis has another size.
        """
        data = self.weight.new_zeros(0) if input_data is None else input_data
        values = self._values(data)
        return values.to(torch.float32) if self._rounds else values

    @contextlib.contextmanager
    def exact(self) -> Iterator[None]:
        """In this context ``forward`` does not round its result to float32."""
        self._rounds = False
        try:
            yield
        finally:
            self._rounds = True

    def _values(self, data: torch.Tensor) -> torch.Tensor:
        if data.shape[-1] != self.num_inputs:
            raise UsageError(
                f"the network takes [..., {self.num_inputs}], not {list(data.shape)}",
            )
        lead = data.shape[:-1]
        wide = self.groups or self.output is not None or not data.is_floating_point()
        dtype = torch.float64 if wide else torch.promote_types(data.dtype, self.weight.dtype)
        data, weight = data.to(dtype), self.weight.to(dtype)
        tensors = []
        for tensor, columns in ((data, self.inputs), (weight, self.weights)):
            if columns:
                whole = columns == list(range(tensor.shape[-1]))
                tensors.append(tensor if whole else _columns(tensor, columns))
        variables = data
        if any(c >= self.num_inputs for _, places, _ in self.groups for p in places for c in p):
            variables = torch.cat([data, weight.expand(*lead, -1)], dim=-1)
        for template, places, _ in self.groups:
            values = [_columns(variables, place) for place in places]
            tensors.append(evaluate(template, values, TORCH))
        if not self.inputs and not self.groups:  # the data has columns for nothing but its rows
            tensors[0] = tensors[0].expand(*lead, -1)
        result = circuit_op(
            tensors,
            self.circuit.name,
            self.qasm,
            self.kind,
            SEPARATOR.join(self.observables),
            0,
            0,
        )
        if self.output is not None:
            result = result.to(torch.float64) @ self.output
        return result.reshape(*lead, *self.shape)

    def extra_repr(self) -> str:
        """Return the sizes for printing."""
        return (
            f"circuit={self.circuit.name!r}, qubits={self.circuit.num_qubits}, "
            f"inputs={self.num_inputs}, weights={self.weight.numel()}, shape={self.shape}"
        )


def _columns(tensor: torch.Tensor, columns: Sequence[int]) -> torch.Tensor:
    return tensor.index_select(-1, torch.tensor(columns, device=tensor.device))


def _with_slots_in_order(circuit: Circuit, start: int, members: Sequence[int]) -> Circuit:
    """Return the circuit with its parameters from ``start`` on in another order."""
    own = circuit.params
    return circuit.with_params((*own[:start], *(own[start + index] for index in members)))
