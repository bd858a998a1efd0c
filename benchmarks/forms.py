"""Weights of few bits in each form: time of a matrix product over float's, by rows.

    python benchmarks/forms.py --sizes 512,1024 --rows 1,2,4,8,32,64,128

One thread; the forms take turns in one process, the least CPU time of all turns counts. A graph is
a chain of products (``--chain``, 8), as the layers of a model are: with one alone, what a call of
the session takes is a third of the time at K = N = 512 and one row. The bytes are those of the file
over float's, the kernel is what ONNX Runtime's optimised graph has, the error is relative, that of
the whole chain, and of random normal weights and inputs, rounded to nearest.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

import qcomp

FORMS = {
    "MatMulNBits, 4 bits, 32": "quantize-weights{symmetric=false}",
    "MatMulNBits, 4 bits, 128, symmetric": "quantize-weights{group=128}",
    "int8, 4 bits, 32": "quantize-weights{symmetric=false,form=int8}",
    "int8, 3 bits, 32": "quantize-weights{symmetric=false,form=int8,bits=3}",
    "int8, 2 bits, 16": "quantize-weights{symmetric=false,form=int8,bits=2,group=16}",
    "int8, 4 bits, 32, scales of activations known": "calibrate{method=minmax},"
    "quantize-static{weight-bits=4,group=32}",
}
_PRODUCTS = 3e8
"""Multiplications of one timing, about."""


@dataclass
class Row:
    """One form of one size.

    Attributes:
        form: Its name.
        size: K = N.
        kernel: What ONNX Runtime runs.
        bytes: Of the file, over float's.
        error: ||y - y_float|| / ||y_float|| of the chain at the largest number of rows.
        times: Rows -> CPU time over float's.
    """

    form: str
    size: int
    kernel: str
    bytes: float
    error: float
    times: dict[int, float]


def chain_of(size: int, count: int, rng: np.random.Generator) -> onnx.ModelProto:
    """Products of size x size, each of the result of the one before."""
    names = ["x", *(f"h{index}" for index in range(1, count)), "y"]
    body = "\n".join(f"{names[i + 1]} = MatMul({names[i]}, w{i})" for i in range(count))
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]>\n'
        f"g (float[m, {size}] x) => (float[m, {size}] y) {{ {body} }}"
    )
    for index in range(count):
        weight = rng.normal(0, size**-0.5, (size, size)).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(weight, f"w{index}"))
    return model


def measure(
    size: int, rows: list[int], turns: int, products: float = _PRODUCTS, chain: int = 8
) -> list[Row]:
    """Measure all forms of a chain of products of size x size."""
    rng = np.random.default_rng(0)
    model = chain_of(size, chain, rng)
    data = {"x": rng.normal(size=(64, size)).astype(np.float32)}
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = {"float": ort.InferenceSession(model.SerializeToString(), options)}
    sizes, kernels = {"float": model.ByteSize()}, {}
    with tempfile.TemporaryDirectory() as folder:
        for index, (form, text) in enumerate(FORMS.items()):
            out = Path(folder) / str(index)
            artifact = qcomp.compile(
                model, target="cpu-int4", pipeline=text, calibration=data, out=out
            )
            (file,) = out.glob("*.onnx")
            sessions[form] = ort.InferenceSession(str(file), options)
            sizes[form] = file.stat().st_size
            kernels[form] = dict(artifact.report)["quantization"]["layers"][0]["runs"]
    found = [
        Row(form, size, kernels[form], sizes[form] / sizes["float"], 0.0, {}) for form in FORMS
    ]
    for count in rows:
        x = rng.normal(size=(count, size)).astype(np.float32)
        repeat = max(1, int(products / (count * size * size * chain)))
        best = dict.fromkeys(sessions, float("inf"))
        results = {}
        for _ in range(turns):
            for form, session in sessions.items():
                start = time.process_time()
                for _ in range(repeat):
                    (results[form],) = session.run(None, {"x": x})
                best[form] = min(best[form], time.process_time() - start)
        for row in found:
            row.times[count] = best[row.form] / best["float"]
            off = results[row.form] - results["float"]
            row.error = float(np.linalg.norm(off) / np.linalg.norm(results["float"]))
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", default="512,1024,2048")
    parser.add_argument("--rows", default="1,2,4,8,32,64,128")
    parser.add_argument("--turns", type=int, default=25)
    parser.add_argument("--chain", type=int, default=8)
    options = parser.parse_args()
    rows = [int(part) for part in options.rows.split(",")]
    print("| K = N | form | kernel | bytes | error |" + "".join(f" {m} |" for m in rows))
    print("|---" * (5 + len(rows)) + "|")
    for size in map(int, options.sizes.split(",")):
        for row in measure(size, rows, options.turns, chain=options.chain):
            times = "".join(f" {row.times[m]:.2f} |" for m in rows)
            print(
                f"| {size} | {row.form} | {row.kernel} | {row.bytes:.3f} | {row.error:.3f} |{times}"
            )


if __name__ == "__main__":
    main()
