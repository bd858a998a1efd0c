"""GPTQ of one layer beside what its multiplications would take as products of matrices.

    python benchmarks/error_feedback.py --sizes 1024,4096 --tokens 4096
    python benchmarks/error_feedback.py --sizes '' --model minilm.onnx --data calibration.npz
    python benchmarks/error_feedback.py --sizes '' --jobs 1,2

The bound is the floating point operations of each step, T K^2 for the second moments, 2/3 K^3 for
the factor of their inverse and N K^2 for the updates (N = K), over the rate of float32 products
that is measured in the same process. CPU time, one thread, the least of the turns; kernels are
compiled before. The goal is 1.5 times the bound at 4096. What the defaults do besides, descent and
fitted scales, is a row of its own.

With ``--model``, GPTQ of a whole model by its defaults, the largest second moments first: CPU
seconds of the pass and the peak of resident memory above what imports and compiled kernels left.

With ``--jobs``, GPTQ of a block of a made decoder (1,536 channels, 4,096 inside, 1,024 tokens) by
so many processes in turns: seconds on the wall, CPU seconds of the process that compiles, and of
its workers together, their start included. On processors that others use the wall says little.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.big_decoder import Shape, write_decoder, write_tokens
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


@dataclass
class Shared:
    """What a compile by several processes takes.

    Attributes:
        wall: Seconds.
        here: CPU time of the process that compiles.
        apart: CPU time of its workers.
    """

    wall: float
    here: float
    apart: float


def shared_out(folder: Path, jobs: list[int], turns: int) -> dict[int, Shared]:
    """The least of some turns by each number of processes, by CPU time."""
    import qcomp

    size = Shape(hidden=1536, inner=4096, heads=12, vocabulary=512)
    write_decoder(folder / "decoder.onnx", 0, size, tokens=128)
    write_tokens(folder / "data.npz", size, samples=8, tokens=128)
    pipeline = "canonicalise,gptq{group=32},quantize-weights{symmetric=false},tie-weights"
    measure(256, 256, 1, 256)
    best = {count: Shared(np.inf, np.inf, np.inf) for count in jobs}
    for turn in range(turns):
        for count in jobs:
            start, before = time.perf_counter(), spent()
            qcomp.compile(
                folder / "decoder.onnx",
                target="cpu-int4",
                pipeline=pipeline,
                calibration=folder / "data.npz",
                out=folder / f"{turn}-{count}",
                jobs=count,
            )
            here, apart = np.subtract(spent(), before)
            wall = time.perf_counter() - start
            if here + apart < best[count].here + best[count].apart:
                best[count] = Shared(wall, here, apart)
    return best


def spent() -> tuple[float, float]:
    """CPU time of this process, and of those that it began and that have ended."""
    own, others = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime, others.ru_utime + others.ru_stime


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", default="1024,4096")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--model", type=Path, help="GPTQ of this model, too")
    parser.add_argument("--data", type=Path, help="its calibration data, .npz")
    parser.add_argument("--jobs", help="numbers of processes, with commas")
    options = parser.parse_args()
    if options.jobs is not None:
        with tempfile.TemporaryDirectory() as folder:
            jobs = [int(count) for count in options.jobs.split(",")]
            for count, found in shared_out(Path(folder), jobs, options.turns).items():
                print(
                    f"{count} jobs: {found.wall:.1f} s, CPU s: {found.here:.1f} here, "
                    f"{found.apart:.1f} in workers",
                    flush=True,
                )
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
