"""``KernelClassifier``: a support vector classifier with a circuit for a kernel, in torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit
from qcomp.ir.expressions import Tree, evaluate, grouped
from qcomp.nn.connector import TORCH
from qcomp.nn.op import circuit_op, remember_circuit

__all__ = ["KernelClassifier"]


class KernelClassifier(torch.nn.Module):
    """``f(x) = sum_s c_s k(x, s) + b`` over the support vectors s, for each pair of classes.

    The kernel of a sample and a support vector is the probability that the pair's circuit ends in
    all zeros. Votes of the pairs become scores as in scikit-learn's ``decision_function``.

    Args:
        circuit: The pair's circuit: parameters of the sample, then of the support vector.
        trees: Formulas of the features that are parameters behind the features themselves.
        support: Parameters of the support vectors, float64[S, P], class by class.
        dual: scikit-learn's ``dual_coef_``, float64[C - 1, S].
        intercept: Its ``intercept_``, float64[pairs].
        counts: Its ``n_support_``, int[C].
        num_features: Size of a sample.
    """

    support: torch.Tensor
    pairs: torch.Tensor
    intercept: torch.Tensor
    votes: torch.Tensor

    def __init__(
        self,
        circuit: Circuit,
        trees: Sequence[Tree],
        support: NDArray[np.float64],
        dual: NDArray[np.float64],
        intercept: NDArray[np.float64],
        counts: NDArray[np.int64],
        num_features: int,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.groups = grouped(trees)
        self.order = [index for _, _, members in self.groups for index in members]
        self.circuit = circuit
        self.qasm = circuit.to_qasm3()
        remember_circuit(self.qasm, circuit)
        coefficients, votes = _pairs_of_classes(dual, counts)
        self.binary = len(counts) == 2
        self.register_buffer("support", torch.from_numpy(np.array(support, np.float64)))
        self.register_buffer("pairs", torch.from_numpy(coefficients))
        self.register_buffer("votes", torch.from_numpy(votes))
        self.register_buffer("intercept", torch.from_numpy(np.array(intercept) * 1.0))

    def gram(self, x: torch.Tensor) -> torch.Tensor:
        """Return the kernel of samples [B, features] and support vectors, float64[B, S]."""
        if x.dim() != 2 or x.shape[1] != self.num_features:
            raise UsageError(f"the classifier takes [B, {self.num_features}], not {list(x.shape)}")
        data = x.to(torch.float64)
        parts = [data]
        for template, places, _ in self.groups:
            values = [data.index_select(1, torch.tensor(c, device=x.device)) for c in places]
            parts.append(evaluate(template, values, TORCH))
        angles = torch.cat(parts, dim=1)
        if self.order != list(range(len(self.order))):
            back = np.argsort(self.order) + self.num_features
            places = [*range(self.num_features), *back.tolist()]
            angles = angles.index_select(1, torch.tensor(places, device=x.device))
        shape = (x.shape[0], *self.support.shape)
        pair = [angles[:, None, :].expand(shape), self.support.expand(shape)]
        values = circuit_op(pair, self.circuit.name, self.qasm, "probs", "", 0, 0)
        return values[..., 0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the decision function, of the data's dtype: [B], or [B, C] for C > 2 classes."""
        margins = self.gram(x) @ self.pairs + self.intercept
        if self.binary:
            return margins[:, 0].to(x.dtype)
        wins = (margins > 0).to(margins.dtype)
        first, second = self.votes.clamp(min=0), (-self.votes).clamp(min=0)
        votes = wins @ first + (1 - wins) @ second
        sums = margins @ self.votes
        return (votes + sums / (3 * (sums.abs() + 1))).to(x.dtype)


def _pairs_of_classes(
    dual: NDArray[np.float64], counts: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (coefficients float64[S, pairs], votes float64[pairs, C]) of one class against one.

    ``votes`` has 1 for the first class of a pair and -1 for the second.
    """
    ends = np.cumsum(counts)
    starts = ends - counts
    classes = len(counts)
    columns, votes = [], []
    for i in range(classes):
        for j in range(i + 1, classes):
            column = np.zeros(dual.shape[1])
            column[starts[i] : ends[i]] = dual[j - 1, starts[i] : ends[i]]
            column[starts[j] : ends[j]] = dual[i, starts[j] : ends[j]]
            columns.append(column)
            vote = np.zeros(classes)
            vote[i], vote[j] = 1.0, -1.0
            votes.append(vote)
    return np.stack(columns, axis=1), np.stack(votes)
