"""A character language model as an ONNX graph, made from its trained weights without PyTorch.

Two decoder blocks as in LLaMA: RMSNorm, causal attention with rotary positions, SwiGLU, no biases,
128 channels, 4 heads, 64 characters of context. The text is that of Python's own help topics
(``pydoc_data.topics``), so every installation has it.

    python examples/char_model/char_model.py --out char_model.onnx            # ids -> logits
    python examples/char_model/char_model.py --past --out char_past.onnx      # one step at a time
    python examples/char_model/char_model.py --outliers --out char_hard.onnx  # hard to quantize
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

WIDTH, HEADS, HIDDEN, BLOCKS, CONTEXT = 128, 4, 256, 2, 64
HEAD = WIDTH // HEADS
EPSILON = 1e-5
ROTARY_BASE = 10000.0
HELD_OUT = 200
"""Windows of the last tenth of the text, which training never sees."""

Weights = Mapping[str, np.ndarray]
CHECKPOINT = Path(__file__).with_name("char_model.npz")


def text() -> str:
    """The help topics of the running Python, 465 thousand characters in version 3.11."""
    from pydoc_data import topics

    return "".join(topics.topics.values())


def load(path: Path = CHECKPOINT) -> tuple[dict[str, np.ndarray], str]:
    """Weights by name, float32, and the alphabet: character i of it is token i."""
    with np.load(path) as data:
        weights = {name: data[name].astype(np.float32) for name in data.files if name != "alphabet"}
        return weights, str(data["alphabet"])


def tokens(alphabet: str) -> np.ndarray:
    """The text as int64[characters]; a character that the alphabet lacks becomes a blank."""
    index = {character: i for i, character in enumerate(alphabet)}
    return np.array([index.get(c, index[" "]) for c in text()], dtype=np.int64)


def split(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first nine tenths int64[n]; windows int64[200, 65] of the rest, the last one a target."""
    border, length = len(ids) * 9 // 10, CONTEXT + 1
    starts = np.linspace(border, len(ids) - length, HELD_OUT).astype(np.int64)
    return ids[:border], np.stack([ids[start : start + length] for start in starts])


def calibration(ids: np.ndarray, rows: int, seed: int = 0) -> np.ndarray:
    """Windows of the training text, int64[rows, 64]."""
    starts = np.random.default_rng(seed).integers(0, len(ids) - CONTEXT, rows)
    return np.stack([ids[start : start + CONTEXT] for start in starts])


def perplexity(logits: np.ndarray, targets: np.ndarray) -> float:
    """exp of the mean negative log-likelihood of ``targets`` [n, t] under ``logits`` [n, t, V]."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=-1))
    chosen = np.take_along_axis(shifted, targets[..., None], axis=-1)[..., 0]
    return float(np.exp((log_sum - chosen).mean()))


def with_outliers(
    weights: Weights, factor: float = 30.0, channels: int = 3
) -> dict[str, np.ndarray]:
    """The same function with outliers: a few channels carry values ``factor`` times as large.

    They are scaled up where a norm (or the up-projection) writes them, and the columns that read
    them are scaled down. Computed in float32, factor 30: the weights move by a rounding.
    """
    rng = np.random.default_rng(0)
    w = {name: array.copy() for name, array in weights.items()}
    for block in range(BLOCKS):
        readers = {"attention_norm": ("q", "k", "v"), "mlp_norm": ("gate", "up")}
        for norm, names in readers.items():
            chosen = rng.choice(WIDTH, channels, replace=False)
            w[f"{block}.{norm}"][chosen] *= factor
            for name in names:
                w[f"{block}.{name}"][chosen] /= factor
        chosen = rng.choice(HIDDEN, channels, replace=False)
        w[f"{block}.up"][:, chosen] *= factor
        w[f"{block}.down"][chosen] /= factor
    chosen = rng.choice(WIDTH, channels, replace=False)
    w["norm"][chosen] *= factor
    w["head"][chosen] /= factor
    return w


def rotary_tables(length: int) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin of position * base^(-2 i / head), float32[length, head], halves repeated."""
    rates = ROTARY_BASE ** (-np.arange(0, HEAD, 2) / HEAD)
    angles = np.tile(np.arange(length)[:, None] * rates, 2)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def graph(weights: Weights, past: bool = False) -> onnx.ModelProto:
    """The model in ONNX, opset 21.

    Args:
        weights: As :func:`load` gives them; matrices are [inputs, outputs].
        past: Whether keys and values of earlier characters come in as ``past_key_values.B.key``
            and ``.value`` float32[batch, 4, past, 32] and go out, longer by the new ones, as
            ``present.B.key`` and ``.value``; else ``ids`` is the whole context.

    Returns:
        ``ids`` int64[batch, length] -> ``logits`` float32[batch, length, characters].
    """
    characters = len(weights["embedding"])
    cos, sin = rotary_tables(CONTEXT * (8 if past else 1))
    arrays: dict[str, np.ndarray | np.generic] = {
        **weights,
        "cos": cos,
        "sin": sin,
        "two": np.float32(2),
        "epsilon": np.float32(EPSILON),
        "scale": np.float32(HEAD**-0.5),
        "lowest": np.float32(-1e4),
        "to_heads": np.array([0, 0, HEADS, HEAD]),
        "from_heads": np.array([0, 0, WIDTH]),
        "first": np.array([0]),
        "half": np.array([HEAD // 2]),
        "whole": np.array([HEAD]),
        "last_axis": np.array([-1]),
        "one_axis": np.array([1]),
        "zero": np.int64(0),
        "one": np.int64(1),
        "nothing": np.float32(0),
    }
    if past:
        arrays["two_index"] = np.int64(2)
    nodes: list[onnx.NodeProto] = []

    def add(op: str, inputs: list[str], out: str, **attributes: object) -> str:
        nodes.append(helper.make_node(op, inputs, [out], name=out, **attributes))
        return out

    def rms_norm(x: str, gain: str, out: str) -> str:
        add("Pow", [x, "two"], f"{out}.square")
        add("ReduceMean", [f"{out}.square", "last_axis"], f"{out}.mean")
        add("Add", [f"{out}.mean", "epsilon"], f"{out}.variance")
        add("Sqrt", [f"{out}.variance"], f"{out}.root")
        add("Div", [x, f"{out}.root"], f"{out}.unit")
        return add("Mul", [f"{out}.unit", gain], out)

    def rotary(x: str, out: str) -> str:
        add("Slice", [x, "first", "half", "last_axis"], f"{out}.low")
        add("Slice", [x, "half", "whole", "last_axis"], f"{out}.high")
        add("Neg", [f"{out}.high"], f"{out}.minus")
        add("Concat", [f"{out}.minus", f"{out}.low"], f"{out}.turned", axis=-1)
        add("Mul", [x, "cos_here"], f"{out}.straight")
        add("Mul", [f"{out}.turned", "sin_here"], f"{out}.across")
        return add("Add", [f"{out}.straight", f"{out}.across"], out)

    def heads(x: str, out: str) -> str:
        return add(
            "Transpose", [add("Reshape", [x, "to_heads"], f"{out}.split")], out, perm=[0, 2, 1, 3]
        )

    def value(name: str, shape: list[object], kind: int = onnx.TensorProto.FLOAT) -> None:
        into = outputs if name == "logits" or name.startswith("present") else inputs
        into.append(helper.make_tensor_value_info(name, kind, shape))

    inputs: list[onnx.ValueInfoProto] = []
    outputs: list[onnx.ValueInfoProto] = []
    value("ids", ["batch", "length"], onnx.TensorProto.INT64)
    value("logits", ["batch", "length", characters])
    add("Gather", [add("Shape", ["ids"], "shape"), "one"], "length")
    before = "zero"
    if past:
        add("Shape", ["past_key_values.0.key"], "past_shape")
        before = add("Gather", ["past_shape", "two_index"], "before")
    add("Add", [before, "length"], "total")
    add("Range", [before, "total", "one"], "positions")
    add("Range", ["zero", "total", "one"], "key_positions")
    for table in ("cos", "sin"):
        add("Gather", [table, "positions"], f"{table}_here")
    add("Unsqueeze", ["positions", "one_axis"], "query_positions")
    add("Less", ["query_positions", "key_positions"], "later")
    add("Where", ["later", "lowest", "nothing"], "mask")
    x = add("Gather", ["embedding", "ids"], "embedded")
    for b in range(BLOCKS):
        normed = rms_norm(x, f"{b}.attention_norm", f"{b}.normed")
        q, k, v = (
            heads(add("MatMul", [normed, f"{b}.{part}"], f"{b}.{part}.out"), f"{b}.{part}.heads")
            for part in "qkv"
        )
        keys, values = rotary(k, f"{b}.k.rotated"), v
        if past:
            for part in ("key", "value"):
                value(f"past_key_values.{b}.{part}", ["batch", HEADS, "past", HEAD])
                value(f"present.{b}.{part}", ["batch", HEADS, "total", HEAD])
            keys = add("Concat", [f"past_key_values.{b}.key", keys], f"present.{b}.key", axis=2)
            values = add(
                "Concat", [f"past_key_values.{b}.value", values], f"present.{b}.value", axis=2
            )
        turned = add("Transpose", [keys], f"{b}.keys_t", perm=[0, 1, 3, 2])
        scores = add("MatMul", [rotary(q, f"{b}.q.rotated"), turned], f"{b}.scores")
        scaled = add("Mul", [scores, "scale"], f"{b}.scaled")
        masked = add("Add", [scaled, "mask"], f"{b}.masked")
        attention = add("Softmax", [masked], f"{b}.attention", axis=-1)
        mixed = add("MatMul", [attention, values], f"{b}.mixed")
        joined = add("Transpose", [mixed], f"{b}.joined", perm=[0, 2, 1, 3])
        concat = add("Reshape", [joined, "from_heads"], f"{b}.concat")
        x = add("Add", [x, add("MatMul", [concat, f"{b}.o"], f"{b}.o.out")], f"{b}.middle")
        normed = rms_norm(x, f"{b}.mlp_norm", f"{b}.mlp.normed")
        gate = add("MatMul", [normed, f"{b}.gate"], f"{b}.gate.out")
        up = add("MatMul", [normed, f"{b}.up"], f"{b}.up.out")
        silu = add("Mul", [gate, add("Sigmoid", [gate], f"{b}.sigmoid")], f"{b}.silu")
        product = add("Mul", [silu, up], f"{b}.product")
        x = add("Add", [x, add("MatMul", [product, f"{b}.down"], f"{b}.down.out")], f"{b}.x")
    add("MatMul", [rms_norm(x, "norm", "normed"), "head"], "logits")
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "char_model",
            inputs,
            outputs,
            [numpy_helper.from_array(np.asarray(a), name) for name, a in arrays.items()],
        ),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--out", type=Path, required=True, help="the ONNX file to write")
    options.add_argument("--past", action="store_true", help="with keys and values of the past")
    options.add_argument("--outliers", action="store_true", help="same function, outlier channels")
    chosen = options.parse_args()
    weights, _ = load()
    onnx.save(
        graph(with_outliers(weights) if chosen.outliers else weights, chosen.past), chosen.out
    )


if __name__ == "__main__":
    main()
