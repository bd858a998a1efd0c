"""One drop for a hybrid model's bytes and T gates: the split found beside random ones and a grid.

    python benchmarks/joint_budget.py [--drop 0.5%] [--grid 20] [--random 50]

The digits model of ``examples/digits_hybrid`` for ``cpu-mixed+clifford+t``. A split gives bytes to
the tensors and a change of observables to the rotations; each is compiled and measured on the 719
held-back digits. Said are the split that ``--max-drop`` finds, how many random splits meet the drop
and dominate it (bytes and T at most its own, one below), and the best of a grid, by bytes times T.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

import qcomp
from qcomp.bits_bound import Allotter
from qcomp.compilation import Compilation
from qcomp.joint_budget import Splits
from qcomp.largest_drop import Drop
from qcomp.loop_bodies import run_passes
from qcomp.passmanager import Context
from qcomp.target import parse_targets

DIGITS = Path(__file__).parent.parent / "examples" / "digits_hybrid"
COARSEST, FINEST = 2.0, 0.02


def splits(drop: str) -> Splits:
    """Return what measures splits of the digits model."""
    graph, circuit = parse_targets("cpu-mixed+clifford+t")
    program = qcomp.read(str(DIGITS / "digits_hybrid.onnx"))
    job = Compilation(program, graph, circuit, Context())
    job.take_data(str(DIGITS / "calibration.npz"), str(DIGITS / "eval.npz"), None)
    job.take_figure(None, None, drop)
    assert circuit is not None
    assert graph is not None
    job.context.target = circuit
    run_passes(job.program, job.pipeline_text(circuit, "default", None), job.context, None)
    job.context.target = graph
    text = job.pipeline_text(graph, "default", None)
    return Splits(job, Allotter(job.program, job.context, text), Drop.parse(drop))


def line(name, split, best) -> None:
    print(f"| {name} | {split.bytes:,} | {split.t:.1f} | {split.drop:.4f} | "
          f"{split.cost / best.cost:.3f} |", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--drop", default="0.5%")
    parser.add_argument("--grid", type=int, default=20)
    parser.add_argument("--random", type=int, default=50)
    options = parser.parse_args()
    start = time.process_time()
    judge = splits(options.drop)
    best = judge.search()
    print(f"{len(judge.known)} splits measured, {time.process_time() - start:.0f} CPU s; "
          f"allowed is a drop of {judge.allowed:.4f}")  # fmt: skip
    print("| split | bytes | T a sample | drop | bytes T over ours |\n|---|---|---|---|---|")
    line("found", best, best)
    low, high = judge.made.least, judge.made.most
    rng = np.random.default_rng(0)
    drawn = [
        judge.measure(
            round(float(np.exp(rng.uniform(np.log(low), np.log(high))))),
            float(np.exp(rng.uniform(np.log(FINEST), np.log(COARSEST)))),
        )
        for _ in range(options.random)
    ]
    meeting = [split for split in drawn if judge.meets(split)]
    better = [
        s for s in meeting
        if s.bytes <= best.bytes and s.t <= best.t and (s.bytes, s.t) != (best.bytes, best.t)
    ]  # fmt: skip
    line("best of the random ones", min(meeting, key=lambda split: split.cost), best)
    tensors = np.geomspace(low, high, options.grid).round().astype(int).tolist()
    changes = np.geomspace(FINEST, COARSEST, options.grid).tolist()
    grid = [judge.measure(t, c) for t in tensors for c in changes]
    inside = [split for split in grid if judge.meets(split)]
    line("best of the grid", min(inside, key=lambda split: split.cost), best)
    print(f"{len(meeting)} of {options.random} random splits meet the drop, {len(better)} dominate "
          f"the one found; {len(inside)} of {len(grid)} of the grid meet it")  # fmt: skip


if __name__ == "__main__":
    main()
