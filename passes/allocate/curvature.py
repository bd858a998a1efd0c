"""Second derivatives of a model's output loss by its weights, a block for each tensor.

    L(W + D) - L(W) = 1/2 <D, H D> + ...,       H_l = d^2 L / d W_l^2

L is the divergence of the outputs from float's, or their squared difference over float's
(:mod:`qcomp.passes.analyze.output_loss`). At float's own weights its gradient is 0 and H is the
Gauss-Newton matrix J^T S S^T J, J the outputs' derivative and S S^T the output loss' own second
derivative: diag(p) - p p^T for logits, 2 / |y|^2 for others. No labels are needed.

* eigenvalue: power iteration v <- H v / |H v| with products <H, v> by two backward passes.
* trace: Hutchinson's estimate E <v, H v> over random signs v; all tensors at once, since signs of
  different tensors are independent.
* squared gradients: g = J^T S u for random signs u has E g g^T = H, so that g^2 estimates its
  diagonal by one backward pass: the Fisher information, where the model's own outputs are labels.

Source: Dong et al. 2019 (HAWQ), arXiv:1905.03696, section 3.1; Dong et al. 2020 (HAWQ-V2),
arXiv:1911.03852, section 3.2; Hutchinson 1990.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from qcomp.errors import PassError
from qcomp.passes.analyze.output_loss import OutputLoss
from qcomp.passes.graph.rewriting import constant_tensor
from qcomp.passes.torch_graph.run import import_torch, run_nodes, untranslated

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.ir.program import Program

__all__ = ["Curvature"]

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float64]
Tensor = Any  # torch has no types here

_CLOSE = 1e-4
"""Relative change of the eigenvalue at which power iteration ends."""


class Curvature:
    """The Hessian's blocks of some tensors, in float64.

    Args:
        program: In float.
        weights: The tensors.
        feeds: Rows of data.
        losses: The outputs that count.
        rng: Source of random signs.

    Raises:
        PassError: An operator without a gradient here.
        UsageError: PyTorch is not installed.
    """

    def __init__(
        self,
        program: Program,
        weights: Sequence[ir.Value],
        feeds: Mapping[str, Array],
        losses: Sequence[OutputLoss],
        rng: np.random.Generator,
    ) -> None:
        self._torch = import_torch("a second derivative of the loss")
        self._nodes = list(program.model.graph)
        missing = untranslated(self._nodes)
        if missing:
            label = next(iter(missing.values()))
            raise PassError(
                f"{', '.join(missing)} has no gradient here",
                where=label,
                hint="'measure-sensitivity' needs no gradients",
            )
        self._feeds, self._losses, self._rng = feeds, losses, rng
        self.names = [value.name or "" for value in weights]
        self._weights = {}
        for value in weights:
            tensor = constant_tensor(value)
            assert tensor is not None
            array = np.array(tensor.numpy(), np.float64)
            self._weights[value.name or ""] = self._torch.from_numpy(array).requires_grad_()
        self._outputs = self._run()
        self._real = [y.detach() for y in self._outputs]
        self._last: tuple[str, list[Tensor]] | None = None

    def _run(self) -> list[Tensor]:
        """The outputs that count, with gradients by the weights."""
        torch = self._torch
        values: dict[str, Tensor] = dict(self._weights)
        for name, array in self._feeds.items():
            real = np.issubdtype(array.dtype, np.floating)
            values[name] = torch.from_numpy(np.array(array, np.float64 if real else None))
        for node in self._nodes:
            for value in node.inputs:
                tensor = None if value is None else constant_tensor(value)
                if value is None or tensor is None or value.name in values:
                    continue
                array = tensor.numpy()
                if np.issubdtype(array.dtype, np.floating):
                    values[value.name or ""] = torch.from_numpy(np.array(array, np.float64))
        wanted = [loss.name for loss in self._losses]
        run_nodes(self._nodes, values, keep=[*wanted, *self._weights])
        return [values[name] for name in wanted]

    def _loss(self) -> Tensor:
        """The loss at float's own weights: 0, with second derivatives."""
        torch = self._torch
        total = 0.0
        for loss, y, real in zip(self._losses, self._outputs, self._real, strict=True):
            if loss.kind == "squared":
                total = total + (y - real).square().sum() / real.square().sum()
                continue
            p = real if loss.softmax else real.softmax(-1)
            q = y.clamp_min(1e-300).log() if loss.softmax else y.log_softmax(-1)
            divergence = torch.nn.functional.kl_div(q, p, reduction="sum")
            total = total + divergence / (real.numel() // real.shape[-1])
        return total

    def _gradients(self, names: Sequence[str]) -> list[Tensor]:
        parts = [self._weights[name] for name in names]
        return list(self._torch.autograd.grad(self._loss(), parts, create_graph=True))

    def _product(
        self, gradients: Sequence[Tensor], v: Sequence[Tensor], names: Sequence[str]
    ) -> list[Tensor]:
        inner = sum((g * x).sum() for g, x in zip(gradients, v, strict=True))
        parts = [self._weights[name] for name in names]
        return list(
            self._torch.autograd.grad(inner, parts, retain_graph=True, materialize_grads=True)
        )

    def product(self, name: str, v: Floats) -> Floats:
        """H_l v for one tensor, in its shape."""
        if self._last is None or self._last[0] != name:
            self._last = name, self._gradients([name])
        gradients = self._last[1]
        (found,) = self._product(gradients, [self._torch.from_numpy(v)], [name])
        return np.asarray(found.numpy())

    def eigenvalue(self, name: str, iterations: int) -> float:
        """The largest eigenvalue of a tensor's block, by power iteration."""
        torch = self._torch
        shape = tuple(self._weights[name].shape)
        v = torch.from_numpy(self._rng.standard_normal(shape))
        v = v / v.norm()
        gradients = self._gradients([name])
        value = 0.0
        for _ in range(iterations):
            (h,) = self._product(gradients, [v], [name])
            before, value = value, float((h * v).sum())
            size = float(h.norm())
            if not size or abs(value - before) <= _CLOSE * abs(value):
                break
            v = h / size
        return value

    def traces(self, probes: int) -> dict[str, float]:
        """Hutchinson's estimate of the trace of every tensor's block."""
        found = dict.fromkeys(self.names, 0.0)
        gradients = self._gradients(self.names)
        for _ in range(probes):
            signs = [self._signs(tuple(self._weights[name].shape)) for name in self.names]
            products = self._product(gradients, signs, self.names)
            for name, h, v in zip(self.names, products, signs, strict=True):
                found[name] += float((h * v).sum()) / probes
        return found

    def squared_gradients(self, probes: int) -> dict[str, Floats]:
        """An estimate of the diagonal of every tensor's block, in its shape."""
        found = {name: np.zeros(tuple(self._weights[name].shape)) for name in self.names}
        parts = [self._weights[name] for name in self.names]
        for _ in range(probes):
            total = 0.0
            for loss, y, real in zip(self._losses, self._outputs, self._real, strict=True):
                signs = self._signs(tuple(real.shape))
                if loss.kind == "squared":
                    direction = signs * (2.0 / real.square().sum()).sqrt()
                else:
                    p = real if loss.softmax else real.softmax(-1)
                    root = p.sqrt() * signs
                    direction = root - p * root.sum(-1, keepdim=True)
                    if loss.softmax:  # by the probabilities, not by logits
                        direction = signs / p.clamp_min(1e-300).sqrt()
                    direction = direction / (real.numel() // real.shape[-1]) ** 0.5
                total = total + (y * direction).sum()
            gradients = self._torch.autograd.grad(
                total, parts, retain_graph=True, materialize_grads=True
            )
            for name, g in zip(self.names, gradients, strict=True):
                found[name] += g.square().numpy() / probes
        return found

    def _signs(self, shape: tuple[int, ...]) -> Tensor:
        return self._torch.from_numpy(self._rng.choice([-1.0, 1.0], shape))
