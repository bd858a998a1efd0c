"""What learned rounding gains and costs: output SQNR and CPU seconds with and without it.

    python benchmarks/learn_rounding.py DIR [NAME ...] [--only W4] [--rows N] [--ablation]

DIR is a folder as ``benchmarks/quantize.py`` takes it. Every figure is taken from the ONNX file
that was written, run by ONNX Runtime over the whole evaluation data; CPU seconds are those of the
pipeline. ``--ablation`` runs the options of the pass one by one on the first model named.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import time
from pathlib import Path

from quantize_tasks import Judge, Reference, Task, read_tasks

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

IMAGES = "learn-rounding{{bits={bits},steps=100}}"
TEXTS = "learn-rounding{{bits={bits},steps=60,rows=96,batch=8,rate=0.015{more}}}"
STATIC4 = "quantize-static{weight-bits=4}"

CONFIGS = {
    "W8": ("cpu-int8", "quantize-static", IMAGES.format(bits=8)),
    "W4": ("cpu-int8", STATIC4, IMAGES.format(bits=4)),
}
SEQUENCES = {
    "W8": ("cpu-int8", "quantize-static", TEXTS.format(bits=8, more="")),
    "W4 group 32": (
        "cpu-int4",
        "quantize-weights",
        TEXTS.format(bits=4, more=",group=32,symmetric=false"),
    ),
}

ABLATION = {
    "blocks, any integer, scales": "",
    "layers": "granularity=layer",
    "two blocks as one": "span=2",
    "neighbours only": "freedom=neighbours",
    "scales fixed": "scales=false",
    "AdaRound": "granularity=layer,freedom=neighbours,scales=false",
    "loss |.|^2.4": "loss=lp",
    "loss cosine": "loss=cosine",
    "AdamW": "optimizer=adamw",
    "SGD": "optimizer=sgd",
    "half the rate": "rate=0.01",
    "more than twice the rate": "rate=0.05",
    "half the rows": "rows=96",
}


def pipeline(target: str, step: str, learn: str) -> str:
    """The target's own pipeline, with learned rounding before its quantizing step."""
    from qcomp.target import get_target

    name = step.partition("{")[0]
    found = re.search(rf"{name}(\{{[^}}]*\}})?", get_target(target).pipeline())
    assert found is not None, f"{target} has no {name}"
    own = found[0] if step == name else step
    text = found.string
    return text[: found.start()] + (f"{learn}," if learn else "") + own + text[found.end() :]


def measured(task: Task, target: str, text: str, folder: Path) -> dict[str, float]:
    """Compile by a pipeline and judge the file."""
    import qcomp
    from qcomp.backends.onnx_int import OnnxIntBackend
    from qcomp.execute import Session
    from qcomp.passmanager import Context, Pipeline
    from qcomp.target import get_target

    context = Context(calibration=lambda: iter([task.calibration]))
    program = qcomp.read(task.onnx)
    start = time.process_time()
    Pipeline.parse(text).run(program, context)
    seconds = time.process_time() - start
    out = folder / "out.onnx"
    OnnxIntBackend().write(program, out, get_target(target), context)
    floating, integer, judge, row = Session(task.onnx), Session(out), Judge(task), 0
    name = floating.outputs[0]
    for feeds in task.batches():
        real = Reference(task, floating.run(feeds)[name], row)
        judge.add(real, integer.run(feeds)[name])
        row += len(next(iter(feeds.values())))
    size = out.stat().st_size / task.onnx.stat().st_size
    return {**judge.result(), "seconds": seconds, "size": size}


def show(label: str, found: dict[str, float]) -> None:
    """Print a row of the table."""
    print(
        f"| {label} | {found['sqnr_db']:.1f} | {found['drop']:+.4f} | {found['size']:.3f} "
        f"| {found['seconds']:.1f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--only", default="", help="configurations that begin so")
    parser.add_argument("--rows", type=int, help="evaluation rows")
    parser.add_argument("--ablation", action="store_true")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    print("| model | SQNR in dB | drop | size | CPU s |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for task in read_tasks(options.folder, tuple(options.names), options.rows):
            texts = task.metric in ("perplexity", "spearman")
            configs = SEQUENCES if texts else CONFIGS
            for config, (target, step, learn) in configs.items():
                if not config.startswith(options.only):
                    continue
                choices = {"": "", ", learned": learn}
                if options.ablation:
                    head = learn.removesuffix("}")
                    choices = {
                        f", {k}": f"{head},{v}".rstrip(",") + "}" for k, v in ABLATION.items()
                    }
                for label, text in choices.items():
                    found = measured(task, target, pipeline(target, step, text), folder)
                    show(f"{task.name}, {config}{label}", found)


if __name__ == "__main__":
    main()
