"""A toy vision-language model: a digit's image and a question about it, two towers, then one trunk.

The image is eight rows of pixels, the question four words; each tower makes tokens of 32 channels,
a trunk of two transformer blocks reads all twelve, and their mean answers. The graph is written
once, in ONNX, and trained through PyTorch's form of the same nodes.
"""

from __future__ import annotations

import functools

import numpy as np
import onnx
import onnx_ir as ir

from tests.models import from_text
from tests.papers.digits_mlp import digits

__all__ = ["calibration", "data", "top1", "vlm"]

WIDTH, HIDDEN, STEPS = 32, 64, 600
ANSWERS = 12
"""Ten digits, yes and no."""

_WORDS = ("which", "digit", "is", "it", "even", "odd", "above", "below", "four", "prime")
_QUESTIONS = (
    ("which digit is it", None),
    ("is it even four", lambda d: d % 2 == 0),
    ("is it above four", lambda d: d > 4),
    ("is it prime four", lambda d: np.isin(d, (2, 3, 5, 7))),
)


def _weights(rng: np.random.Generator) -> dict[str, np.ndarray]:
    shapes = {"patch": (8, WIDTH), "v_place": (8, WIDTH), "project": (WIDTH, WIDTH)}
    shapes |= {"words": (len(_WORDS), WIDTH), "t_place": (4, WIDTH), "head": (WIDTH, ANSWERS)}
    for block in ("v0", "v1", "t0", "m0", "m1"):
        shapes |= {f"{block}_up": (WIDTH, HIDDEN), f"{block}_down": (HIDDEN, WIDTH)}
    for block in ("m0", "m1"):
        shapes |= {f"{block}_{part}": (WIDTH, WIDTH) for part in "qkvo"}
    made = {n: rng.standard_normal(s) / np.sqrt(s[0]) for n, s in shapes.items()}
    for name in made:
        if name.endswith(("place", "words")):
            made[name] *= 0.5 * np.sqrt(len(made[name]))
    for block in ("v0", "v1", "t0", "m0", "m1", "m0a", "m1a", "end"):
        made[f"{block}_gain"] = np.ones(WIDTH)
    return {name: array.astype(np.float32) for name, array in made.items()}


def _text() -> str:
    lines: list[str] = []

    def perceptron(block: str, x: str, y: str) -> None:
        lines.append(f"{block}_n = LayerNormalization <axis: int = -1> ({x}, {block}_gain)")
        lines.append(f"{block}_u = MatMul ({block}_n, {block}_up)")
        lines.append(f"{block}_r = Relu ({block}_u)")
        lines.append(f"{block}_d = MatMul ({block}_r, {block}_down)")
        lines.append(f"{y} = Add ({x}, {block}_d)")

    def attention(block: str, x: str, y: str) -> None:
        lines.append(f"{block}a_n = LayerNormalization <axis: int = -1> ({x}, {block}a_gain)")
        lines.extend(f"{block}_{p}x = MatMul ({block}a_n, {block}_{p})" for p in "qkv")
        lines.append(f"{block}_kt = Transpose <perm = [0, 2, 1]> ({block}_kx)")
        lines.append(f"{block}_s = MatMul ({block}_qx, {block}_kt)")
        lines.append(f"{block}_c = Mul ({block}_s, scale)")
        lines.append(f"{block}_a = Softmax <axis: int = -1> ({block}_c)")
        lines.append(f"{block}_m = MatMul ({block}_a, {block}_vx)")
        lines.append(f"{block}_ox = MatMul ({block}_m, {block}_o)")
        lines.append(f"{y} = Add ({x}, {block}_ox)")

    lines += ["pixels = MatMul (image, patch)", "x0 = Add (pixels, v_place)"]
    perceptron("v0", "x0", "x1")
    perceptron("v1", "x1", "x2")
    lines += ["seen = MatMul (x2, project)"]
    lines += ["word = Gather (words, question)", "y0 = Add (word, t_place)"]
    perceptron("t0", "y0", "y1")
    lines += ["z0 = Concat <axis: int = 1> (seen, y1)"]
    for block in range(2):
        attention(f"m{block}", f"z{2 * block}", f"z{2 * block + 1}")
        perceptron(f"m{block}", f"z{2 * block + 1}", f"z{2 * block + 2}")
    lines += ["last = LayerNormalization <axis: int = -1> (z4, end_gain)"]
    lines += ["mean = ReduceMean <keepdims: int = 0> (last, one_axis)"]
    lines += ["answer = MatMul (mean, head)"]
    body = "\n".join(f"            {line}" for line in lines)
    return f"""<ir_version: 10, opset_import: ["" : 21]>
        vlm (float[n, 8, 8] image, int64[n, 4] question) => (float[n, {ANSWERS}] answer) {{
{body}
        }}"""


@functools.cache
def data() -> tuple[dict[str, np.ndarray], np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """Inputs and answers for training and test: every image with every question."""
    x, x_test, y, y_test = digits()
    found: list[object] = []
    for images, labels in ((x, y), (x_test, y_test)):
        words = [[_WORDS.index(w) for w in text.split()] for text, _ in _QUESTIONS]
        answers = [
            labels if rule is None else np.where(rule(labels), 10, 11) for _, rule in _QUESTIONS
        ]
        count = len(images)
        feeds = {
            "image": np.repeat(images.reshape(-1, 8, 8), len(words), axis=0),
            "question": np.tile(np.array(words, np.int64), (count, 1)),
        }
        found += [feeds, np.stack(answers, axis=1).reshape(-1)]
    return tuple(found)  # type: ignore[return-value]


@functools.cache
def _trained(seed: int, steps: int) -> dict[str, np.ndarray]:
    import torch

    from qcomp.passes.quantize.learn_rounding_torch import TorchBlock

    rng = np.random.default_rng(seed)
    start = _weights(rng)
    graph = ir.from_proto(_graph(start)).graph
    block = TorchBlock(list(graph), ["image", "question"])
    weights = {n: torch.from_numpy(a.copy()).requires_grad_(True) for n, a in start.items()}
    feeds, answers, _, _ = data()
    inputs = {n: torch.from_numpy(a) for n, a in feeds.items()}
    goal = torch.from_numpy(answers.astype(np.int64))
    adam = torch.optim.AdamW(list(weights.values()), lr=4e-3, weight_decay=1e-2)
    for step in range(steps):
        adam.param_groups[0]["lr"] = 4e-3 * 0.5 * (1 + np.cos(np.pi * step / steps))
        rows = torch.from_numpy(rng.integers(0, len(goal), 64))
        made = block.run({**{n: t[rows] for n, t in inputs.items()}, **weights})
        loss = torch.nn.functional.cross_entropy(made["answer"], goal[rows])
        adam.zero_grad()
        loss.backward()
        adam.step()
    return {n: w.detach().numpy() for n, w in weights.items()}


def _graph(weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    fixed = {"scale": np.float32(WIDTH**-0.5), "one_axis": np.array([1])}
    return from_text(_text(), **weights, **fixed)


def vlm(factor: float = 1.0) -> onnx.ModelProto:
    """``image`` float32[n, 8, 8], ``question`` int64[n, 4] -> ``answer`` float32[n, 12].

    Args:
        factor: By which two channels behind every normalization, and two of every hidden layer, are
            larger, their readers' weights smaller: the outliers of large models. The function is
            the same.
    """
    w = {name: array.copy() for name, array in _trained(0, STEPS).items()}
    rng = np.random.default_rng(0)
    for name in [name for name in w if name.endswith("_gain")]:
        channels = rng.choice(WIDTH, 2, replace=False)
        w[name][channels] *= factor
        for reader in _readers(name.removesuffix("_gain")):
            w[reader][channels] /= factor
    for name in [name for name in w if name.endswith("_up")]:
        channels = rng.choice(HIDDEN, 2, replace=False)
        w[name][:, channels] *= factor
        w[name.replace("_up", "_down")][channels] /= factor
    return _graph(w)


def _readers(norm: str) -> list[str]:
    """Weights that read what a normalization makes."""
    if norm == "end":
        return ["head"]
    return [f"{norm[:-1]}_{p}" for p in "qkv"] if norm.endswith("a") else [f"{norm}_up"]


def calibration() -> dict[str, np.ndarray]:
    """1,024 pairs of a training image and a question."""
    feeds, _, _, _ = data()
    chosen = np.random.default_rng(0).permutation(len(feeds["image"]))[:1024]
    return {name: array[chosen] for name, array in feeds.items()}


def top1(scores: np.ndarray) -> float:
    """Answers that are right, in percent, over all test images and questions."""
    return 100.0 * float((scores.argmax(axis=1) == data()[3]).mean())
