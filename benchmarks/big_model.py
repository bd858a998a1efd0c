"""Peak memory of a model that does not fit: made, simplified and saved, compiled to INT4.

    python benchmarks/big_model.py --gigabytes 3

Each step runs in a process of its own; what is told is its peak resident memory above that of a
process that only imports the compiler. The goal: at most 2 GB above what the largest tensor needs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper

WIDTH, HIDDEN = 4096, 16384
LIMIT = 2 << 30

STEPS = {
    "imports": "import onnx, onnxruntime, qcomp.driver, qcomp.execute, qcomp.frontends.onnx_model",
    "simplify": """
from qcomp.backends.onnx_file import save_program
from qcomp.frontends.onnx_model import OnnxFrontend
from qcomp.passes.graph.canonicalise import Canonicalise
from qcomp.passes.graph.fold_constants import FoldConstants
from qcomp.passmanager import Context
program = OnnxFrontend().read(source)
for step in (Canonicalise(), FoldConstants()):
    step.run(program, Context())
save_program(program, out + "/simplified.onnx")
""",
    "int4": """
import qcomp
qcomp.compile(source, target="cpu-int4", out=out + "/int4")
""",
}
MEASURE = """
import json, resource, sys, time
source, out = sys.argv[1:3]
start = time.perf_counter()
{code}
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({{"peak": peak, "seconds": seconds}}))
"""


def write_big_model(path: Path, size: int, *, width: int = WIDTH, hidden: int = HIDDEN) -> int:
    """Write a feed-forward network of about ``size`` bytes of weights, one layer at a time.

    Args:
        path: The ``.onnx`` file; the weights go to ``path`` + ``.data`` beside it.
        size: Bytes of all weights together, at least.
        width: Inputs and outputs of each block.
        hidden: Width between the two layers of a block.

    Returns:
        Bytes of the largest tensor.
    """
    rng = np.random.default_rng(0)
    block = rng.standard_normal(1 << 20, dtype=np.float32)
    nodes, weights, value = [], [], "x"
    name = f"{path.name}.data"
    with open(path.parent / name, "wb") as file:
        while file.tell() < size:
            index = len(weights)
            K, N = (width, hidden) if index % 2 == 0 else (hidden, width)
            weights.append(_reference(f"w{index}", [K, N], name, file.tell()))
            left = K * N
            while left:
                part = block[: min(left, block.size)] * np.float32((1 + index) * K**-0.5)
                file.write(part.tobytes())
                left -= part.size
            made = f"h{index}"
            nodes.append(helper.make_node("MatMul", [value, f"w{index}"], [made], f"layer{index}"))
            value = made
            if index % 2 == 0:
                nodes.append(helper.make_node("Relu", [made], [f"r{index}"], f"relu{index}"))
                value = f"r{index}"
    last = hidden if len(weights) % 2 else width
    graph = helper.make_graph(
        nodes,
        "big",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", width])],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, ["batch", last])],
        weights,
    )
    model: ModelProto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10
    )
    path.write_bytes(model.SerializeToString())
    return 4 * width * hidden


def _reference(name: str, dims: list[int], location: str, offset: int) -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=dims)
    tensor.data_location = TensorProto.EXTERNAL
    places = {"location": location, "offset": offset, "length": 4 * dims[0] * dims[1]}
    for key, text in places.items():
        tensor.external_data.add(key=key, value=str(text))
    return tensor


def measure(step: str, source: Path, out: Path) -> dict[str, float]:
    """Run one of ``STEPS`` in a new process; return its peak bytes and its seconds."""
    code = MEASURE.format(code=STEPS[step])
    done = subprocess.run(
        [sys.executable, "-c", code, str(source), str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"step '{step}' failed:\n{done.stderr}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> int:
    """Measure every step and print a table; exit code 1 when the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=3.0, help="bytes of weights, in 10^9")
    parser.add_argument("--folder", type=Path, help="where the files go for the while")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="qcomp-big-", dir=arguments.folder) as name:
        folder = Path(name)
        source = folder / "big.onnx"
        start = time.perf_counter()
        largest = write_big_model(source, int(arguments.gigabytes * 1e9))
        size = (folder / "big.onnx.data").stat().st_size
        print(
            f"made {size / 1e9:.2f} GB of weights in {time.perf_counter() - start:.1f} s, "
            f"the largest tensor has {largest / 1e9:.2f} GB"
        )
        ground = measure("imports", source, folder)["peak"]
        missed = False
        for step in ("simplify", "int4"):
            result = measure(step, source, folder)
            above = result["peak"] - ground
            missed = missed or above > LIMIT + largest
            print(
                f"{step:10s} {result['seconds']:7.1f} s, peak {above / 1e9:5.2f} GB above imports "
                f"({ground / 1e9:.2f} GB), goal {(LIMIT + largest) / 1e9:.2f} GB"
            )
    print("goal missed" if missed else "goal met")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
