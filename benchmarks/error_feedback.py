"""GPTQ of one layer beside what its multiplications would take as products of matrices.

    python benchmarks/error_feedback.py --sizes 1024,4096 --tokens 4096
    python benchmarks/error_feedback.py --sizes '' --model minilm.onnx --data calibration.npz

The bound is the floating point operations of each step, T K^2 for the second moments, 2/3 K^3 for
the factor of their inverse and N K^2 for the updates (N = K), over the rate of float32 products
that is measured in the same process. CPU time, one thread, the least of the turns; kernels are
compiled before. The goal is 1.5 times the bound at 4096. What the defaults do besides, descent and
fitted scales, is a row of its own.

With ``--model``, GPTQ of a whole model by its defaults, the largest second moments first: CPU
seconds of the pass and the peak of resident memory above what imports and compiled kernels left.
"""

from __future__ import annotations

import argparse
import resource
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qcomp.passes.quantize.error_feedback.columns import feed_back
from qcomp.passes.quantize.error_feedback.descent import descend
from qcomp.passes.quantize.error_feedback.factor import inverse_factor
from qcomp.passes.quantize.error_feedback.moments import Moments
from qcomp.passes.quantize.grids import Grid

PRODUCT = 2048
"""Rows and columns of the product that the rate is measured with."""

GOAL = 1.5


@dataclass
class Row:
    """One step of one size.

    Attributes:
        step: What it does.
        size: K = N.
        flops: Floating point operations that it cannot do without; 0 where none are counted.
        seconds: CPU time.
        bound: Those operations as a product of matrices, in seconds.
    """

    step: str
    size: int
    flops: float
    seconds: float
    bound: float


def rate(size: int = PRODUCT, turns: int = 3) -> float:
    """Floating point operations a CPU second of a float32 product."""
    a = np.random.default_rng(0).normal(size=(size, size)).astype(np.float32)
    best = np.inf
    for _ in range(turns):
        start = time.process_time()
        a @ a
        best = min(best, time.process_time() - start)
    return 2 * size**3 / best


def measure(size: int, tokens: int, turns: int, product: int = PRODUCT) -> list[Row]:
    """Measure the steps of a layer of size x size; the bound is of the rate in each turn."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(tokens, size)).astype(np.float32)
    weight = rng.normal(size=(size, size)).astype(np.float32)
    counted = {
        "second moments": tokens * size**2,
        "factor": 2 / 3 * size**3,
        "updates": size**3,
        "descent, fitted scales": 0.0,
    }
    best = dict.fromkeys(counted, np.inf)
    fastest = 0.0
    for _ in range(turns):
        fastest = max(fastest, rate(product, 1))
        grids = Grid(4, 32, False, "mse").fitted(weight)
        clock = [time.process_time()]
        moments = Moments(size)
        moments.add(x)
        clock.append(time.process_time())
        factor = inverse_factor(moments.hessian, 0.01)
        assert factor is not None
        clock.append(time.process_time())
        levels, grids = feed_back(weight, factor, grids)
        clock.append(time.process_time())
        descend(weight, levels, grids, moments.hessian, sweeps=4, refits=1)
        clock.append(time.process_time())
        for step, spent in zip(best, np.diff(clock), strict=True):
            best[step] = min(best[step], float(spent))
    rows = [Row(step, size, flops, best[step], flops / fastest) for step, flops in counted.items()]
    whole = rows[:3]
    flops = sum(row.flops for row in whole)
    seconds = sum(row.seconds for row in whole)
    return [*rows, Row("GPTQ: moments, factor, updates", size, flops, seconds, flops / fastest)]


@dataclass
class Cost:
    """What a pass takes.

    Attributes:
        layers: How many it rounded.
        seconds: CPU time.
        bytes: Peak of memory above what was held before the model was read.
    """

    layers: int
    seconds: float
    bytes: int


def whole_model(path: Path, data: dict[str, np.ndarray]) -> Cost:
    """Round all layers of a model with kernels that are compiled."""
    import onnx_ir.passes.common  # noqa: F401  imports are no work

    import qcomp
    import qcomp.execute
    import qcomp.passes.graph.fused_forms
    from qcomp.passmanager import Context, Pipeline
    from qcomp.quantization import ChosenWeights

    measure(64, 64, 1, 64)
    graph = Pipeline.parse("canonicalise,take-apart,fold-constants,canonicalise")
    gptq = Pipeline.parse("gptq{order=activation}")
    ground = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    program, context = qcomp.read(path), Context(calibration=lambda: iter([data]))
    graph.run(program, context)
    start = time.process_time()
    gptq.run(program, context)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - ground
    return Cost(len(context.need(ChosenWeights, "gptq").weights), seconds, 1024 * peak)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", default="1024,4096")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--model", type=Path, help="GPTQ of this model, too")
    parser.add_argument("--data", type=Path, help="its calibration data, .npz")
    options = parser.parse_args()
    if options.model is not None:
        cost = whole_model(options.model, dict(np.load(options.data)))
        print(f"{cost.layers} layers: {cost.seconds:.1f} CPU s, {cost.bytes / 1e9:.2f} GB")
    sizes = [int(size) for size in options.sizes.split(",") if size]
    if not sizes:
        return
    print("| K = N | step | GFLOP | CPU s | bound, s | over the bound |\n|---|---|---|---|---|---|")
    for size in sizes:
        measure(min(size, 256), 256, 1, 256)  # compiles
        for row in measure(size, options.tokens, options.turns):
            over = f"{row.seconds / row.bound:.2f}" if row.bound else "-"
            print(
                f"| {size} | {row.step} | {row.flops / 1e9:.1f} | {row.seconds:.2f} "
                f"| {row.bound:.2f} | {over} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
