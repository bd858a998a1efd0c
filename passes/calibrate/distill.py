"""Inputs that make a network's channels as wide as its BatchNormalizations remember them.

    x* = argmin_x  sum_i  mean_c ((m_i(x) - mu_i) / sigma_i)^2 + ((s_i(x) - sigma_i) / sigma_i)^2

m_i(x) and s_i(x) are the means and deviations of the channels c that BatchNormalization i reads,
over the batch and all positions, mu_i and sigma_i what training left in it. ZeroQ takes the plain
squares; divided by sigma, layers of all magnitudes count alike. Where the normalizations have been
folded, ``fuse-batch-norm`` remembers them: a normalized value has mean beta, deviation abs(gamma).

The search begins at made images. The first normalization says which brightness and contrast the
network has seen: with R_c the answer of its channels to a constant in input channel c,

    b = lstsq(R, mu_1 - m_1(0)),    a = mean sigma_1 / s_1(x),    x <- a x + b

Adam does the rest; every batch is distilled by itself, so one is in memory.

Source: Cai et al. 2020, ZeroQ, arXiv:2001.00281, equation 2 and algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from qcomp.passes.graph.rewriting import constant_array, float_attribute
from qcomp.quantization import ChannelMoments

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.passmanager import Context

__all__ = ["Distillation", "remembered_moments"]

Float64 = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Moments = tuple[Float64, Float64]
Tensor = Any

_LEAST = 1e-6
_AFFINE = {"Conv", "Gemm", "MatMul", "Add", "Sub", "Mul", "Div", "Pad", "Identity", "Transpose"}


def remembered_moments(model: ir.Model, context: Context) -> dict[str, Moments]:
    """Return value name -> (means, deviations) of its channels on the data of the training."""
    found: dict[str, Moments] = {}
    made: set[str | None] = set()
    for node in model.graph:
        made.update(value.name for value in node.outputs)
        if (node.domain, node.op_type) == ("", "BatchNormalization"):
            mean, var = (constant_array(value) for value in node.inputs[3:5])
            source = node.inputs[0]
            if mean is not None and var is not None and source is not None and source.name:
                epsilon = float_attribute(node, "epsilon", 1e-5)
                deviation = np.sqrt(np.asarray(var, np.float64) + epsilon)
                found[source.name] = (np.asarray(mean, np.float64), deviation)
    fact = context.get(ChannelMoments)
    for name, moments in ({} if fact is None else fact.moments).items():
        if name in made:
            found.setdefault(name, moments)
    return found


@dataclass(frozen=True, eq=False)
class Distillation:
    """The search for one model.

    Attributes:
        model: The model; its one input is searched.
        moments: Value name -> (means, deviations) of its channels.
        steps: Steps of Adam.
        rate: Its first step, over the deviation of the input; it falls to 0 by a cosine.
    """

    model: ir.Model
    moments: Mapping[str, Moments]
    steps: int
    rate: float = 0.05

    def run(self, x: Floats, context: Context) -> tuple[Floats, float, float]:
        """Search from a batch [n, ...].

        Returns:
            The inputs, and the loss where the search began and ended.
        """
        import torch

        constants: dict[str, Tensor] = {}
        targets = {
            name: tuple(torch.from_numpy(part.astype(np.float32)) for part in pair)
            for name, pair in self.moments.items()
        }
        with torch.no_grad():
            start = self._adapted(torch.from_numpy(x), constants)
        scale = float(start.std())
        free = start.clone().requires_grad_(True)
        adam = torch.optim.Adam([free], lr=self.rate * max(scale, _LEAST))
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(adam, max(self.steps, 1))
        losses: list[float] = []
        best = start
        with context.progress.task("distilling inputs", self.steps) as task:
            for _ in range(self.steps + 1):
                loss = self._loss(self._values(free, constants), targets)
                losses.append(float(loss.detach()))
                if losses[-1] <= min(losses):
                    best = free.detach().clone()
                adam.zero_grad()
                loss.backward()
                adam.step()
                decay.step()
                task.advance()
        return best.numpy(), losses[0], min(losses)

    def _values(self, x: Tensor, constants: dict[str, Tensor]) -> dict[str, Tensor]:
        from qcomp.passes.torch_graph import run_nodes

        values = {**constants, self._input: x}
        run_nodes(self._needed, values)
        if not constants:
            made = {v.name for node in self._needed for v in node.outputs}
            constants.update({n: v for n, v in values.items() if n not in made})
            constants.pop(self._input)
        return values

    def _loss(
        self, values: Mapping[str, Tensor], targets: Mapping[str, tuple[Tensor, ...]]
    ) -> Tensor:
        total = 0.0
        for name, (mean, deviation) in targets.items():
            m, s = _moments(values[name])
            width = deviation.clamp_min(_LEAST)
            total = total + ((m - mean) / width).square().mean()
            total = total + ((s - deviation) / width).square().mean()
        return total

    def _adapted(self, x: Tensor, constants: dict[str, Tensor]) -> Tensor:
        """Give made images the brightness and the contrast of the training's."""
        import torch

        name, nodes = self._first()
        if name is None or any(node.op_type not in _AFFINE for node in nodes):
            return x
        mean, deviation = self.moments[name]
        zero = torch.zeros_like(x[:1])
        silent = _moments(self._values(zero, constants)[name])[0].numpy().astype(np.float64)
        answers = []
        for channel in range(x.shape[1]):
            one = zero.clone()
            one[:, channel] = 1.0
            answer = _moments(self._values(one, constants)[name])[0].numpy()
            answers.append(answer.astype(np.float64) - silent)
        b = np.linalg.lstsq(np.stack(answers, 1), mean - silent, rcond=0.05)[0]
        seen = _moments(self._values(x, constants)[name])[1].numpy().astype(np.float64)
        a = float(deviation.mean() / max(float(seen.mean()), _LEAST))
        shift = torch.from_numpy(b.astype(np.float32)).reshape(1, -1, *[1] * (x.dim() - 2))
        return a * x + shift

    def _first(self) -> tuple[str | None, list[ir.Node]]:
        """The first value with moments, and the operators that make it from the input."""
        nodes: list[ir.Node] = []
        for node in self._needed:
            nodes.append(node)
            for value in node.outputs:
                if value.name in self.moments:
                    return value.name, nodes
        return None, nodes

    @property
    def _input(self) -> str:
        inputs = [v for v in self.model.graph.inputs if not v.is_initializer()]
        return inputs[0].name or ""

    @property
    def _needed(self) -> list[ir.Node]:
        return needed_nodes(self.model, self.moments)


def needed_nodes(model: ir.Model, names: Mapping[str, object]) -> list[ir.Node]:
    """Return the operators that named values are made by, in graph order."""
    wanted = set(names)
    kept = []
    for node in reversed(list(model.graph)):
        if any(value.name in wanted for value in node.outputs):
            kept.append(node)
            wanted.update(value.name for value in node.inputs if value is not None and value.name)
    return kept[::-1]


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Means and deviations of the channels, axis 1."""
    axes = [axis for axis in range(x.dim()) if axis != 1]
    mean = x.mean(axes)
    variance = (x - mean.reshape(1, -1, *[1] * (x.dim() - 2))).square().mean(axes)
    return mean, (variance + 1e-12).sqrt()
