"""A made decoder of any size is compiled in little memory, killed half-way, and goes on.

    python benchmarks/big_decoder.py --gigabytes 1 --steps rounding,gptq,resume

Random weights in a language model's real shapes. Each step runs in a process of its own; what is
told is its peak resident memory above that of a process that only imports the compiler, and its
CPU seconds. Goals: 2 GB by rounding, 2 GB and the largest layer's weights and Hessian by GPTQ with
8 x 512 tokens, and the same bytes from a compile that was killed half-way as from one that was not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

LIMIT = 2 << 30
SAMPLES, TOKENS = 8, 512
GRAPH = """
freeze-defaults,canonicalise,inline-functions,widen-floats,take-apart,fold-constants,canonicalise,
fuse-batch-norm,quantize-embeddings,{passes},restore-halves,quantization-error,tie-weights
"""
PIPELINES = {
    "rounding": GRAPH.format(passes="quantize-weights{group=128}"),
    "gptq": GRAPH.format(
        passes="gptq{group=128,sweeps=SWEEPS},quantize-weights{group=128,symmetric=false}"
    ),
}
MEASURE = """
import json, resource, sys, time
import onnx, onnxruntime, scipy.linalg, numba
import qcomp.driver, qcomp.execute, qcomp.frontends.onnx_model
arguments = json.loads(sys.argv[1])
ground = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
if arguments:
    qcomp.driver.compile(**arguments)
usage = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({"above": usage.ru_maxrss * 1024 - ground, "cpu": time.process_time()}))
"""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a decoder is made of.

    Attributes:
        hidden: Width of the residual stream.
        inner: Width between the products of a feed-forward block.
        heads: Of attention.
        vocabulary: Tokens.
    """

    hidden: int = 4096
    inner: int = 11008
    heads: int = 32
    vocabulary: int = 32000

    def layers(self, size: int) -> int:
        """Blocks that a decoder of ``size`` bytes has, at least one."""
        block = 4 * (4 * self.hidden**2 + 3 * self.hidden * self.inner)
        ends = 8 * self.hidden * self.vocabulary
        return max(1, round((size - ends) / block))

    @property
    def largest(self) -> int:
        """Bytes of the weights and the Hessian of the layer that needs most of both."""
        shapes = [(self.inner, self.hidden), (self.hidden, self.vocabulary)]
        return max(4 * (k * n + k * k) for k, n in shapes)


class _Writer:
    """A model whose weights go to a file one after the other."""

    def __init__(self, path: Path, shape: Shape) -> None:
        self.path, self.shape = path, shape
        self.rng = np.random.default_rng(0)
        self.nodes: list[NodeProto] = []
        self.tensors: list[TensorProto] = []
        self.file = open(f"{path}.data", "wb")  # noqa: SIM115  closed by whoever writes the model

    def weight(self, name: str, *dims: int) -> str:
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=dims)
        tensor.data_location = TensorProto.EXTERNAL
        left, offset = int(np.prod(dims)), self.file.tell()
        places = {"location": f"{self.path.name}.data", "offset": offset, "length": 4 * left}
        for key, text in places.items():
            tensor.external_data.add(key=key, value=str(text))
        while left:
            part = self.rng.standard_normal(min(left, 1 << 22), dtype=np.float32)
            part *= np.float32(dims[0] ** -0.5)
            self.file.write(part.tobytes())
            left -= part.size
        self.tensors.append(tensor)
        return name

    def constant(self, name: str, array: np.ndarray) -> str:
        if all(tensor.name != name for tensor in self.tensors):
            self.tensors.append(
                helper.make_tensor(
                    name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape, array
                )
            )
        return name

    def node(self, kind: str, *inputs: str, out: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [out], out, **attributes))
        return out

    def norm(self, x: str, name: str) -> str:
        gain = self.constant("gain", np.ones(self.shape.hidden, np.float32))
        return self.node("LayerNormalization", x, gain, out=name, axis=-1, epsilon=1e-5)

    def product(self, x: str, name: str, rows: int, columns: int) -> str:
        return self.node("MatMul", x, self.weight(f"{name}.weight", rows, columns), out=name)

    def block(self, x: str, name: str) -> str:
        s = self.shape
        heads = self.constant("heads", np.array([0, 0, s.heads, s.hidden // s.heads]))
        h = self.norm(x, f"{name}/norm1")
        parts = {}
        for part, order in (("q", (0, 2, 1, 3)), ("k", (0, 2, 3, 1)), ("v", (0, 2, 1, 3))):
            value = self.product(h, f"{name}/{part}", s.hidden, s.hidden)
            value = self.node("Reshape", value, heads, out=f"{name}/{part}_split")
            parts[part] = self.node("Transpose", value, out=f"{name}/{part}_heads", perm=order)
        scores = self.node("MatMul", parts["q"], parts["k"], out=f"{name}/scores")
        scale = self.constant("scale", np.array((s.hidden // s.heads) ** -0.5, np.float32))
        scores = self.node("Mul", scores, scale, out=f"{name}/scaled")
        scores = self.node("Add", scores, "mask", out=f"{name}/masked")
        shares = self.node("Softmax", scores, out=f"{name}/shares", axis=-1)
        mixed = self.node("MatMul", shares, parts["v"], out=f"{name}/mixed")
        mixed = self.node("Transpose", mixed, out=f"{name}/turned", perm=(0, 2, 1, 3))
        whole = self.constant("whole", np.array([0, 0, s.hidden]))
        mixed = self.node("Reshape", mixed, whole, out=f"{name}/joined")
        y = self.product(mixed, f"{name}/o", s.hidden, s.hidden)
        x = self.node("Add", x, y, out=f"{name}/attended")
        h = self.norm(x, f"{name}/norm2")
        gate = self.product(h, f"{name}/gate", s.hidden, s.inner)
        open_ = self.node("Sigmoid", gate, out=f"{name}/sigmoid")
        gate = self.node("Mul", gate, open_, out=f"{name}/silu")
        up = self.product(h, f"{name}/up", s.hidden, s.inner)
        both = self.node("Mul", gate, up, out=f"{name}/gated")
        y = self.product(both, f"{name}/down", s.inner, s.hidden)
        return self.node("Add", x, y, out=f"{name}/out")


def write_decoder(path: Path, size: int, shape: Shape, *, tokens: int = TOKENS) -> int:
    """Write a decoder of about ``size`` bytes; its weights go to ``path`` + ``.data``.

    Args:
        path: The ``.onnx`` file.
        size: Bytes of the weights.
        shape: Its widths.
        tokens: Length of the sequences it takes.

    Returns:
        Blocks of the decoder.
    """
    writer = _Writer(path, shape)
    with writer.file:
        table = writer.weight("embedding", shape.vocabulary, shape.hidden)
        writer.constant("mask", np.triu(np.full((tokens, tokens), -1e4, np.float32), 1))
        x = writer.node("Gather", table, "tokens", out="embedded")
        blocks = shape.layers(size)
        for index in range(blocks):
            x = writer.block(x, f"block{index}")
        x = writer.norm(x, "norm")
        logits = writer.product(x, "logits", shape.hidden, shape.vocabulary)
    graph = helper.make_graph(
        writer.nodes,
        "decoder",
        [helper.make_tensor_value_info("tokens", TensorProto.INT64, ["batch", tokens])],
        [
            helper.make_tensor_value_info(
                logits, TensorProto.FLOAT, ["batch", tokens, shape.vocabulary]
            )
        ],
        writer.tensors,
    )
    model: ModelProto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10
    )
    path.write_bytes(model.SerializeToString())
    return blocks


def write_tokens(path: Path, shape: Shape, *, samples: int = SAMPLES, tokens: int = TOKENS) -> None:
    """Write calibration data: random tokens."""
    drawn = np.random.default_rng(1).integers(0, shape.vocabulary, (samples, tokens))
    np.savez(path, tokens=drawn)


def measure(arguments: dict[str, object]) -> dict[str, float]:
    """Compile in a new process; return its peak bytes above imports and its CPU seconds."""
    done = subprocess.run(_command(arguments), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the compile failed:\n{done.stderr}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def kill_half_way(arguments: dict[str, object], cache: Path, layers: int) -> int:
    """Compile in a new process and kill it when so many layers are finished; return how many."""
    process = subprocess.Popen(_command(arguments), stdout=subprocess.DEVNULL)
    while process.poll() is None and finished(cache) < layers:
        time.sleep(0.02)
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    return finished(cache)


def finished(cache: Path) -> int:
    """Layers that lie finished in a folder."""
    return len(list(cache.glob("*/entry.json")))


def graph_bytes(out: Path) -> str:
    """A digest of the graph and the weights that a compile wrote."""
    found = hashlib.sha256()
    for path in sorted(out.glob("stage0.onnx*")):
        with open(path, "rb") as file:
            while part := file.read(1 << 24):
                found.update(part)
    return found.hexdigest()


def _command(arguments: dict[str, object]) -> list[str]:
    return [sys.executable, "-c", MEASURE, json.dumps(arguments)]


def main() -> int:
    """Measure every step and print a table; exit code 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=1.0, help="bytes of weights, in 10^9")
    parser.add_argument("--folder", type=Path, help="where the files go for the while")
    parser.add_argument("--steps", default="rounding,gptq,resume")
    parser.add_argument("--sweeps", type=int, default=0, help="of coordinate descent behind gptq")
    parser.add_argument("--hidden", type=int, default=4096, help="width, 64 a head")
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    hidden = arguments.hidden
    shape = Shape(hidden, hidden * 43 // 16, hidden // 128)
    missed = False
    with tempfile.TemporaryDirectory(prefix="qcomp-big-", dir=arguments.folder) as name:
        folder = Path(name)
        source, data = folder / "decoder.onnx", folder / "data.npz"
        blocks = write_decoder(source, int(arguments.gigabytes * 1e9), shape)
        write_tokens(data, shape)
        size = (folder / "decoder.onnx.data").stat().st_size
        print(f"{size / 1e9:.2f} GB, {blocks} blocks of width {hidden}", flush=True)
        digests = {}
        for step in arguments.steps.split(","):
            method = "gptq" if step == "resume" else step
            call: dict[str, object] = {
                "source": str(source),
                "target": "cpu-int4",
                "pipeline": PIPELINES[method].replace("SWEEPS", str(arguments.sweeps)),
                "out": str(folder / step),
                "jobs": arguments.jobs,
            }
            if method == "gptq":
                call["calibration"] = str(data)
            if step == "resume":
                call["cache"] = str(folder / "cache")
                done = kill_half_way(call, folder / "cache", (7 * blocks + 1) // 2)
                print(f"killed with {done} of {7 * blocks + 1} layers finished", flush=True)
            result = measure(call)
            digests[step] = graph_bytes(folder / step)
            limit = LIMIT + (shape.largest if method == "gptq" else 0)
            missed = missed or result["above"] > limit
            print(
                f"{step:10s} {result['cpu']:8.1f} CPU s, peak {result['above'] / 1e9:5.2f} GB "
                f"above imports, goal {limit / 1e9:.2f} GB",
                flush=True,
            )
        if "resume" in digests and "gptq" in digests:
            same = digests["resume"] == digests["gptq"]
            missed = missed or not same
            print("killed and resumed: " + ("the same bytes" if same else "OTHER BYTES"))
    print("goal missed" if missed else "goals met")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
