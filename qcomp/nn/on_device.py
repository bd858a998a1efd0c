"""A quantum layer's circuit on a runtime device, differentiated there by shifted circuits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from qcomp.ir.circuit import Circuit
from qcomp.ir.program import Readout
from qcomp.nn.op import batch_of, dtype_of, rows_of
from qcomp.runtime.devices import run_on
from qcomp.runtime.parameter_shift import shift_gradients
from qcomp.simulate import expectation_gradients, probability_gradients

__all__ = ["OnDevice", "run_circuit"]


@dataclass(frozen=True)
class OnDevice:
    """What one call of a layer runs, and where.

    Attributes:
        circuit: The circuit, its parameters in the order of the inputs.
        readout: "expval" or "probs", with its shots.
        device: A name of :data:`qcomp.runtime.devices.DEVICES`.
        noise: The machine whose noise there is, for devices that have any.
        seed: Of this call's shots.
        shifted: The gradient is that of shifted circuits on the device, not the exact one.
    """

    circuit: Circuit
    readout: Readout
    device: str
    noise: str | None
    seed: int
    shifted: bool

    def values(self, circuit: Circuit, rows: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
        """Return the readout, float64[B, K], by one call of the device."""
        found = run_on(self.device, circuit, self.readout, rows, None, seed, self.noise)
        return np.asarray(found, dtype=np.float64)

    def gradients(
        self,
        rows: NDArray[np.float64],
        cotangent: NDArray[np.float64],
        needed: NDArray[np.bool_],
    ) -> NDArray[np.float64]:
        """Return the gradient in the parameters, float64[B, P], by one call of the device."""
        if self.shifted:
            seed = self.seed + (1 << 31)  # shots of its own
            return shift_gradients(
                self.circuit,
                rows,
                cotangent,
                lambda circuit, moved: self.values(circuit, moved, seed),
                needed,
            )
        if self.readout.kind == "probs":
            return probability_gradients(self.circuit, rows, cotangent)
        return expectation_gradients(self.circuit, rows, self.readout.observables, cotangent)


def run_circuit(call: OnDevice, tensors: list[torch.Tensor]) -> torch.Tensor:
    """Return the readout of tensors [..., P_i] side by side, differentiable.

    Args:
        call: What is run.
        tensors: As of :func:`qcomp.nn.op.circuit_op`.
    """
    result = _Run.apply(call, *tensors)
    assert isinstance(result, torch.Tensor)
    return result


class _Run(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: OnDevice, *tensors: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
        ctx.call = call
        ctx.save_for_backward(*tensors)
        rows = rows_of(tensors)
        values = call.values(call.circuit, rows, call.seed)
        shape = (*batch_of(tensors), values.shape[-1])
        out = torch.from_numpy(np.ascontiguousarray(values)).reshape(shape)
        return out.to(tensors[0].device, dtype_of(tensors))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *cotangents: torch.Tensor) -> tuple[Any, ...]:  # noqa: ANN401
        tensors = ctx.saved_tensors
        (cotangent,) = cotangents
        rows = rows_of(tensors)
        weight = cotangent.detach().to("cpu", torch.float64).reshape(len(rows), -1).numpy()
        needed = np.concatenate(
            [
                np.full(tensor.shape[-1], wanted)
                for tensor, wanted in zip(tensors, ctx.needs_input_grad[1:], strict=True)
            ]
        )
        found = torch.from_numpy(ctx.call.gradients(rows, weight, needed))
        found = found.reshape(*batch_of(tensors), rows.shape[1])
        shares = found.split([tensor.shape[-1] for tensor in tensors], dim=-1)
        grads = [
            share.sum_to_size(tensor.shape).to(tensor.device, tensor.dtype)
            for share, tensor in zip(shares, tensors, strict=True)
        ]
        return (None, *grads)
