"""The smallest file within a drop: cpu-mixed --max-drop beside NNCF's accuracy control.

    python benchmarks/mixed_bits_peers.py DIR --models A,B --python PYTHON [--rows 512]

DIR holds classifiers as ``quantize_tasks.py`` describes them; PYTHON has NNCF and ONNX Runtime.
Both get the same calibration rows and labelled rows, and may lose so much of the accuracy on these.
NNCF's accuracy control puts layers back into float until the drop is met.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np


def accuracy(model: Any, x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Whether each row is right."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if not isinstance(model, onnxruntime.InferenceSession):
        content = model if isinstance(model, str) else model.SerializeToString()
        model = onnxruntime.InferenceSession(content, options)
    name = model.get_inputs()[0].name
    parts = [model.run(None, {name: x[i : i + 32]})[0].argmax(-1) for i in range(0, len(x), 32)]
    return np.concatenate(parts) == y


def nncf_child(source: str, data: str, out: str, drop: float) -> None:
    """What runs in NNCF's interpreter."""
    import nncf
    import onnx

    arrays = np.load(data)
    model = onnx.load(source)
    name = model.graph.input[0].name
    rows = [{name: row[None]} for row in arrays["calib"]]
    pairs = list(zip(arrays["x"], arrays["y"], strict=True))

    def right(made: Any, chosen: Any) -> tuple[float, list[float]]:
        x, y = zip(*chosen, strict=True)
        found = accuracy(made, np.stack(x), np.stack(y)).astype(float)
        return float(found.mean()), found.tolist()

    made = nncf.quantize_with_accuracy_control(
        model,
        calibration_dataset=nncf.Dataset(rows),
        validation_dataset=nncf.Dataset(pairs),
        validation_fn=right,
        max_drop=drop,
        drop_type=nncf.DropType.ABSOLUTE,
        subset_size=len(rows),
    )
    onnx.save(made, out)


def main() -> None:
    if sys.argv[1] == "child":
        nncf_child(*sys.argv[2:5], float(sys.argv[5]))
        return
    from quantize_tasks import read_tasks

    import qcomp

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="models with their data")
    parser.add_argument("--models", required=True, help="names, with commas")
    parser.add_argument("--python", required=True, help="an interpreter that has NNCF")
    parser.add_argument("--rows", type=int, default=512, help="labelled rows")
    parser.add_argument("--calibration", type=int, default=128, help="calibration rows")
    parser.add_argument("--drop", type=float, default=0.005, help="of the accuracy")
    options = parser.parse_args()
    for task in read_tasks(options.folder, tuple(options.models.split(",")), options.rows):
        ((name, calibration),) = task.calibration.items()
        calibration = calibration[: options.calibration]
        x, y = task.evaluation[name], task.targets
        source = float(accuracy(str(task.onnx), x, y).mean())
        print(f"{task.name} float: {task.onnx.stat().st_size:,} bytes, {source:.4f}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            scratch = Path(folder)
            ours = qcomp.compile(
                task.onnx,
                target="cpu-mixed",
                calibration={name: calibration},
                labels={name: x, "y": y},
                max_drop=options.drop,
                out=scratch / "ours",
            )
            (path,) = ours.path.glob("*.onnx")
            say(task.name, "qcomp", path, source, x, y)
            np.savez(scratch / "data.npz", calib=calibration, x=x, y=y)
            peer = scratch / "peer.onnx"
            words = [str(task.onnx), str(scratch / "data.npz"), str(peer), str(options.drop)]
            made = subprocess.run(
                [options.python, __file__, "child", *words], capture_output=True, text=True
            )
            if made.returncode:
                print(f"{task.name} nncf: {made.stderr.strip().splitlines()[-1]}", flush=True)
            else:
                say(task.name, "nncf", peer, source, x, y)


def say(
    task: str,
    tool: str,
    path: Path,
    source: float,
    x: np.ndarray[Any, Any],
    y: np.ndarray[Any, Any],
) -> None:
    lost = source - float(accuracy(str(path), x, y).mean())
    print(f"{task} {tool}: {path.stat().st_size:,} bytes, drop {lost:.4f}", flush=True)


if __name__ == "__main__":
    main()
