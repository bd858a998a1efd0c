"""Blocks for joint learning, partitioned by the entropy of the activations between them.

Learning layers together finds what learning them one by one cannot, and costs more. How much two
neighbours depend on each other is told by the activation between them: the larger its entropy

    h = -sum_i p_i log2 p_i + log2 w,      p_i the share of values in bin i of width w,

the larger the error that rounding it to few bits makes (h is log2 of the width over which values
spread), and the more the next layer has to make good. With units u_1 ... u_n that one value is left
of, a partition into blocks of at most ``span`` units is sought that cuts where entropies are least:

    min sum over cuts i of (1 + h_i - min h)

which dynamic programming solves. Units whose result is read beyond the block are not joined.

Cost: a run of the float program over some rows; n span steps.
Source: Wang et al. 2024, arXiv:2410.08119 (Q-VLM), of which we read the abstract and summaries:
entropy as the proxy of dependency across layers, blocks partitioned by it, the visual encoder
optimised apart. The measure of entropy, the objective above and the rounding of the encoder's
results in its loss (:func:`qcomp.passes.quantize.learn_rounding_engine.learn`) are our choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from qcomp.ir.stages import captured_values
from qcomp.passes.quantize.learn_rounding_graph import Stream, Unit, closed, joined_unit

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["entropies", "entropy", "entropy_blocks", "only_from"]

_BINS = 256


def entropy(values: npt.NDArray[np.floating]) -> float:
    """Differential entropy in bits, from a histogram of 256 bins; -inf for a constant.

    | values           | entropy |
    |------------------|---------|
    | uniform in [0, 1] | 0      |
    | uniform in [0, 8] | 3      |
    """
    low, high = float(values.min()), float(values.max())
    if not high > low:
        return float("-inf")
    counts, _ = np.histogram(values, bins=_BINS, range=(low, high))
    p = counts[counts > 0] / values.size
    return float(-(p * np.log2(p)).sum() + np.log2((high - low) / _BINS))


def entropies(units: Sequence[Unit], stream: Stream) -> list[float]:
    """Entropy of the float result of each unit.

    Args:
        units: In graph order.
        stream: Of the float program, at its beginning.
    """
    targets = [unit.target for unit in units]
    stream.want(value.name or "" for value in targets)
    made = [value for value in targets if value.producer() is not None]
    stream.run(stream.part(stream.missing(made), made))
    names = [value.name or "" for value in targets]
    return [
        entropy(np.concatenate([np.asarray(chunk[n]).reshape(-1) for chunk in stream.chunks]))
        for n in names
    ]


def entropy_blocks(units: Sequence[Unit], entropies: Sequence[float], span: int) -> list[Unit]:
    """Join units into blocks, see the module.

    Args:
        units: In graph order.
        entropies: Of their results.
        span: Units of a block, at most.
    """
    finite = [h for h in entropies if np.isfinite(h)]
    least = min(finite, default=0.0)
    cost = [1.0 + (h - least if np.isfinite(h) else 0.0) for h in entropies]
    best: list[tuple[float, int]] = [(0.0, 0)]
    for end in range(1, len(units) + 1):
        found = []
        for start in range(end - 1, max(-1, end - 1 - span), -1):
            if end - start > 1 and not closed(units[start:end]):
                continue
            found.append((best[start][0] + (cost[start - 1] if start else 0.0), start))
        best.append(min(found))
    blocks: list[Unit] = []
    end = len(units)
    while end:
        start = best[end][1]
        blocks.append(joined_unit(units[start:end]))
        end = start
    return blocks[::-1]


def only_from(graph: ir.Graph, name: str) -> set[ir.Value]:
    """Values that depend on one input of a graph and on no other; none for the name ''."""
    sources: dict[ir.Value, frozenset[str]] = {v: frozenset([v.name or ""]) for v in graph.inputs}
    for node in graph:
        read = [sources[v] for v in captured_values(node) if v in sources]
        for value in node.outputs if read else ():
            sources[value] = frozenset[str]().union(*read)
    return {value for value, inputs in sources.items() if name and inputs == {name}}
