"""The digits model with its first Linear swapped by each method: cost, accuracy beside float's.

``python -m benchmarks.lowering_layers [--limit ROWS]``. A network 64-16-10 of sklearn's digits,
60 % to train; for ``hypergraph`` one whose inputs and first weights are signs. Networks compute in
float64, so that what differs is the lowering; circuits are simulated exactly. Rows are limited, as
a row of ``swap-test`` is 16 circuits of 14 qubits.
"""

from __future__ import annotations

import argparse
import functools
import time
import warnings
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import qcomp
from qcomp.execute import HybridSession
from qcomp.lowered import LoweredLayer, LoweredLayers
from qcomp.passmanager import Context, Pipeline

METHODS = ("orthogonal", "swap-test", "hypergraph")
HIDDEN = 16


@dataclass(frozen=True)
class Row:
    """One method: the cost of its layer, accuracies on the rows that ran, how far outputs are."""

    layer: LoweredLayer
    rows: int
    float_accuracy: float
    accuracy: float
    difference: float
    seconds: float


@functools.cache
def digits() -> tuple[
    NDArray[np.float32], NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]
]:
    """Return images for training and test, float32[n, 64] in [0, 1], and their labels."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    images = (data.data / 16.0).astype(np.float32)
    found = train_test_split(
        images, data.target, train_size=0.6, stratify=data.target, random_state=0
    )
    return found[0], found[1], found[2], found[3]


def network(*, binary: bool) -> onnx.ModelProto:
    """Return a trained network; ``binary``: signs of pixels times signs of weights come first."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    x, _, y, _ = digits()
    given = np.where(x > 0.5, 1.0, -1.0) if binary else x
    mlp = MLPClassifier((HIDDEN,), random_state=0, max_iter=60, learning_rate_init=0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sixty epochs are enough here
        mlp.fit(given, y)
    w, v = mlp.coefs_
    b, c = mlp.intercepts_
    nodes = []
    first = "x"
    if binary:
        w = np.where(w >= 0, 1.0, -1.0)
        read = LogisticRegression(max_iter=2000).fit(np.maximum(given @ w + b, 0.0) / 8.0, y)
        v, c = read.coef_.T / 8.0, read.intercept_
        nodes = [
            helper.make_node("Sub", ["x", "half"], ["centred"]),
            helper.make_node("Sign", ["centred"], ["signs"]),
        ]
        first = "signs"
    nodes += [
        helper.make_node("Gemm", [first, "w", "b"], ["h"], name="fc1"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "v", "c"], ["y"], name="fc2"),
    ]
    arrays = {"w": w, "b": b, "v": v, "c": c} | ({"half": np.array(0.51)} if binary else {})
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, ["n", 64])],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, ["n", 10])],
        [numpy_helper.from_array(np.asarray(a, np.float64), n) for n, a in arrays.items()],
    )
    opset = helper.make_opsetid("", 21)
    return helper.make_model(graph, opset_imports=[opset], ir_version=10)


def measure(method: str, limit: int) -> Row:
    """Lower the first layer, run both on the first rows of the test set."""
    source = qcomp.read(network(binary=method == "hypergraph"))
    lowered, context = source.copy(), Context()
    Pipeline.parse(f"lower-layer{{node=fc1,method={method}}}").run(lowered, context)
    _, x, _, y = digits()
    x, y = x[:limit].astype(np.float64), y[:limit]
    expected = HybridSession(source).run({"x": x})["y"]
    start = time.process_time()
    got = HybridSession(lowered).run({"x": x}, shots=0)["y"]
    seconds = time.process_time() - start
    return Row(
        context.need(LoweredLayers, "lower-layer").layers[0],
        len(x),
        float((expected.argmax(axis=1) == y).mean()),
        float((got.argmax(axis=1) == y).mean()),
        float((np.abs(got - expected) / np.maximum(1.0, np.abs(expected))).max()),
        seconds,
    )


def rows(limit: int = 100) -> list[Row]:
    """Return a row for each method."""
    return [measure(method, limit) for method in METHODS]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, default=100, help="rows of the test set")
    limit = parser.parse_args().limit
    print(
        "| method | qubits | two-qubit gates | depth | circuits a row | float | lowered | largest"
    )
    for row in rows(limit):
        layer = row.layer
        print(
            f"| `{layer.method}` | {layer.qubits} | {layer.two_qubit} | {layer.depth} | "
            f"{layer.runs} | {row.float_accuracy:.3f} | {row.accuracy:.3f} | {row.difference:.1e} "
            f"({row.rows} rows, {row.seconds:.1f} CPU s)"
        )


if __name__ == "__main__":
    main()
