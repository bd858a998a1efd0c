"""How much worse the outputs of a model are than float's: one number, the less the better.

    KL(p || q) = sum_v p_v (log p_v - log q_v)  in nats,      |y' - y|^2 / |y|^2  for other outputs

Logits over a vocabulary and probabilities are compared by the divergence of a token or row, other
outputs by their squared difference. Infinities, as masks have them, count as 0.

Source: Cai et al. 2020 (ZeroQ), arXiv:2001.00281, equation 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from qcomp.passes.graph.rewriting import constant_tensor
from qcomp.passes.quantize.quantize_embeddings import looked_up_table

if TYPE_CHECKING:
    from qcomp.ir.program import Program

__all__ = ["Loss", "OutputLoss", "distance", "output_loss"]

Array = npt.NDArray[np.generic]
Loss = Literal["kl", "squared"]


@dataclass(slots=True)
class OutputLoss:
    """How an output differs from float's.

    Attributes:
        name: Of the graph output.
        kind: ``kl`` of its last axis as logits, or ``squared``.
        softmax: Whether the output is probabilities already.
    """

    name: str
    kind: Loss
    softmax: bool = False

    @property
    def unit(self) -> str:
        """What one of it is."""
        return "nats" if self.kind == "kl" else "noise over signal"

    def of(self, real: Array, got: Array) -> tuple[float, float]:
        """Return the difference of a batch and what it is to be divided by."""
        a, b = (np.asarray(x, np.float32) for x in (real, got))
        if self.kind == "squared":
            a, b = np.nan_to_num(a), np.nan_to_num(b)
            wide, other = (x.astype(np.float64).ravel() for x in (a, b))  # squares stay finite
            off = other - wide
            return float(np.dot(off, off)), float(np.dot(wide, wide))
        if self.softmax:
            a, b = (np.log(np.maximum(x, np.finfo(np.float32).tiny)) for x in (a, b))
        a, b = (x.reshape(-1, x.shape[-1]) for x in (a, b))
        # log sum p exp(d) - sum p d, which keeps its digits where d is small.
        total = 0.0
        for start in range(0, len(a), _POSITIONS):
            z, moved = a[start : start + _POSITIONS], b[start : start + _POSITIONS]
            p = np.exp(z - z.max(-1, keepdims=True))
            p /= p.sum(-1, keepdims=True)
            d = moved - z
            d -= np.einsum("nv,nv->n", p, d)[:, None]
            total += float(np.log1p(np.einsum("nv,nv->n", p, np.expm1(d)).astype(np.float64)).sum())
        return max(0.0, total), float(len(a))


_POSITIONS = 256
"""Rows of logits at a time."""


def output_loss(program: Program, asked: Literal["auto", "kl", "squared"]) -> list[OutputLoss]:
    """Return how the outputs of a program are compared.

    With ``auto`` logits count, and nothing else, where there are any: outputs as wide as a table
    of the graph has rows, with token ids coming in, or behind a Softmax.
    """
    graph = program.model.graph
    tables = {
        int(t.shape.numpy()[0])
        for n in graph
        if (v := looked_up_table(n, 2)) is not None and (t := constant_tensor(v)) is not None
    }
    real = [v for v in graph.outputs if v.dtype is None or v.dtype.name in _FLOATS]
    found = []
    for value in real:
        maker = value.producer()
        softmax = maker is not None and maker.op_type == "Softmax"
        last = value.shape[-1] if value.shape is not None and len(value.shape) else None
        logits = softmax or (maker is not None and maker.op_type == "LogSoftmax")
        logits = logits or (isinstance(last, int) and last in tables and len(value.shape or ()) > 2)
        if asked == "kl" or (asked == "auto" and logits):
            found.append(OutputLoss(value.name or "", "kl", softmax))
    return found or [OutputLoss(v.name or "", "squared") for v in real]


_FLOATS = ("FLOAT", "FLOAT16", "DOUBLE")


def distance(
    losses: Sequence[OutputLoss], real: Mapping[str, Array], got: Mapping[str, Array]
) -> float:
    """The sum of what the outputs of one batch differ by."""
    total = 0.0
    for loss in losses:
        moved, scale = loss.of(real[loss.name], got[loss.name])
        total += moved / scale if scale else 0.0
    return total
