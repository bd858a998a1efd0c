"""How long ONNX Runtime takes for one operator, by shape and by how its weight is stored.

Each operator runs alone on random data in the forms that are compared: float, blocks of 2, 4 or 8
bits (MatMulNBits), 8-bit integers (QLinearConv; DynamicQuantizeLinear and MatMulInteger, which
weights of fewer bits become when a graph is loaded). Forms of one operator take turns, and the
least CPU time of any turn counts: a loaded machine makes some turns longer, none shorter.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from qcomp.errors import UsageError

if TYPE_CHECKING:
    import onnx

__all__ = ["FLOAT", "INTEGERS", "Operation", "measured", "turns_of"]

FLOAT, INTEGERS = "float", "integers"
_TURN = 1e-3
"""CPU seconds of a turn, about."""

_TURNS = 7
_OPSET = 21

Array = npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Operation:
    """An operator as far as its time depends on it.

    Attributes:
        kind: ``MatMul`` or ``Conv``.
        shape: Of its data; (rows, K) of a product.
        weight: Of the weight; (K, N) of a product.
        form: ``float``, ``integers``, or bits and block of MatMulNBits: ``4/32``.
        options: Of a convolution: name -> numbers.
    """

    kind: str
    shape: tuple[int, ...]
    weight: tuple[int, ...]
    form: str = FLOAT
    options: tuple[tuple[str, tuple[int, ...]], ...] = ()

    def __str__(self) -> str:
        """Return the name that tables have for it."""
        sizes = ["x".join(map(str, shape)) for shape in (self.shape, self.weight)]
        given = [f"{name}={','.join(map(str, values))}" for name, values in self.options]
        return " ".join([self.kind, sizes[0], "by", sizes[1], *given, "as", self.form])

    @staticmethod
    def parse(name: str) -> Operation:
        """Read the name that :meth:`__str__` gives.

        Raises:
            UsageError: If it is none.
        """
        words = name.split()
        try:
            shape, weight = (tuple(map(int, words[i].split("x"))) for i in (1, 3))
            pairs = (word.split("=") for word in words[4:-2])
            options = tuple((key, tuple(map(int, text.split(",")))) for key, text in pairs)
            return Operation(words[0], shape, weight, words[-1], options)
        except (ValueError, IndexError) as error:
            raise UsageError(
                f"'{name}' is no operator of a table of latencies",
                hint="MatMul 1x64 by 64x10 as float",
            ) from error

    def nearest(self, known: Iterable[Operation]) -> Operation | None:
        """The one of a kind and form whose shapes are nearest, in logarithms; None for none."""
        alike = [
            op
            for op in known
            if (op.kind, op.form, len(op.shape), op.is_depthwise)
            == (self.kind, self.form, len(self.shape), self.is_depthwise)
        ]

        def apart(other: Operation) -> float:
            pairs = zip((*self.shape, *self.weight), (*other.shape, *other.weight), strict=True)
            return sum(math.log(a / b) ** 2 for a, b in pairs)

        return min(alike, key=apart, default=None)

    def scaled(self, seconds: float, other: Operation) -> float:
        """The time of another shape in proportion to its multiplications."""
        return seconds * other.multiplications / self.multiplications

    @property
    def is_depthwise(self) -> bool:
        """Whether it is a convolution whose groups have one channel each."""
        return self.kind == "Conv" and dict(self.options).get("group", (1,))[0] == self.shape[1]

    @property
    def multiplications(self) -> int:
        """How many numbers are multiplied."""
        if self.kind == "MatMul":
            return self.shape[0] * math.prod(self.weight)
        options = dict(self.options)
        rank = len(self.shape) - 2
        strides = options.get("strides", (1,) * rank)
        pads = options.get("pads", (0,) * (2 * rank))
        widths = options.get("dilations", (1,) * rank)
        places = 1
        for axis in range(rank):
            taken = (self.weight[2 + axis] - 1) * widths[axis] + 1
            room = self.shape[2 + axis] + pads[axis] + pads[rank + axis] - taken
            places *= max(0, room // strides[axis] + 1)
        return self.shape[0] * places * math.prod(self.weight)

    def model(self) -> tuple[onnx.ModelProto, dict[str, Array]]:
        """Return the operator as a graph of its own, and data for it."""
        rng = np.random.default_rng(0)
        data = rng.normal(size=self.shape).astype(np.float32)
        if self.kind == "Conv":
            return self._convolution(rng, data)
        return self._product(rng, data)

    def _product(
        self, rng: np.random.Generator, data: npt.NDArray[np.float32]
    ) -> tuple[onnx.ModelProto, dict[str, Array]]:
        from onnx import helper

        k, n = self.weight
        if self.form == FLOAT:
            given: dict[str, Array] = {"w": rng.normal(size=(k, n)).astype(np.float32)}
            nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
        elif self.form == INTEGERS:
            given = {
                "w": rng.integers(-100, 100, (k, n)).astype(np.int8),
                "ws": np.full(n, 0.01, np.float32),
                "wz": np.zeros(n, np.int8),
            }
            nodes = [
                helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
                helper.make_node("MatMulInteger", ["q", "w", "z", "wz"], ["i"]),
                helper.make_node("Cast", ["i"], ["f"], to=1),
                helper.make_node("Mul", ["s", "ws"], ["sw"]),
                helper.make_node("Mul", ["f", "sw"], ["y"]),
            ]
        else:
            bits, block = map(int, self.form.split("/"))
            blocks = -(-k // block)
            packed = rng.integers(0, 256, (n, blocks, block * bits // 8)).astype(np.uint8)
            zeros = rng.integers(0, 256, n * -(-blocks * bits // 8)).astype(np.uint8)
            given = {"w": packed, "s": np.full(n * blocks, 0.01, np.float32), "z": zeros}
            nodes = [
                helper.make_node(
                    "MatMulNBits",
                    ["x", *given],
                    ["y"],
                    domain="com.microsoft",
                    K=k,
                    N=n,
                    bits=bits,
                    block_size=block,
                    accuracy_level=4,
                )
            ]
        return _graph(nodes, given, "y", 1, {"x": data}), {"x": data}

    def _convolution(
        self, rng: np.random.Generator, data: npt.NDArray[np.float32]
    ) -> tuple[onnx.ModelProto, dict[str, Array]]:
        from onnx import helper

        groups = dict(self.options).get("group", (1,))[0]
        options: dict[str, Any] = {name: list(values) for name, values in self.options}
        options["group"] = groups
        if self.form == FLOAT:
            given: dict[str, Array] = {"w": rng.normal(size=self.weight).astype(np.float32)}
            nodes = [helper.make_node("Conv", ["x", "w"], ["y"], **options)]
            return _graph(nodes, given, "y", 1, {"x": data}), {"x": data}
        feeds: dict[str, Array] = {"x": rng.integers(0, 255, self.shape).astype(np.uint8)}
        channels = self.weight[0]
        given = {
            "xs": np.array(0.02, np.float32),
            "xz": np.array(128, np.uint8),
            "w": rng.integers(-100, 100, self.weight).astype(np.int8),
            "ws": np.full(channels, 0.01, np.float32),
            "wz": np.zeros(channels, np.int8),
            "ys": np.array(0.1, np.float32),
            "yz": np.array(128, np.uint8),
        }
        nodes = [helper.make_node("QLinearConv", ["x", *given], ["y"], **options)]
        return _graph(nodes, given, "y", 2, feeds), feeds


def _graph(
    nodes: Sequence[onnx.NodeProto],
    given: dict[str, Array],
    output: str,
    kind: int,
    feeds: dict[str, Array],
) -> onnx.ModelProto:
    from onnx import helper, numpy_helper

    inputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
        )
        for name, array in feeds.items()
    ]
    outputs = [helper.make_tensor_value_info(output, kind, None)]
    tensors = [numpy_helper.from_array(np.asarray(a), name) for name, a in given.items()]
    graph = helper.make_graph(list(nodes), "operator", inputs, outputs, tensors)
    domains = [helper.make_opsetid("", _OPSET), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=domains, ir_version=10)


def measured(operations: Sequence[Operation]) -> dict[str, float]:
    """Measure operations; forms of one operator take turns.

    Args:
        operations: Equal ones are measured once.

    Returns:
        Name -> CPU seconds of one run.
    """
    from qcomp.execute import Session

    alike: dict[Operation, list[Operation]] = {}
    for operation in dict.fromkeys(operations):
        alike.setdefault(replace(operation, form=FLOAT), []).append(operation)
    found: dict[str, float] = {}
    for forms in alike.values():
        made = [operation.model() for operation in forms]
        runs = [partial(Session(model).run, feeds) for model, feeds in made]
        found.update(zip(map(str, forms), turns_of(runs), strict=True))
    return found


def turns_of(runs: Sequence[Callable[[], object]]) -> list[float]:
    """Return the least CPU seconds of each run, taking turns."""
    counts = []
    for run in runs:
        run()
        start = time.process_time()
        run()
        once = max(time.process_time() - start, 1e-6)
        counts.append(max(1, round(_TURN / once)))
    best = [math.inf] * len(runs)
    for _ in range(_TURNS):
        for index, run in enumerate(runs):
            start = time.process_time()
            for _ in range(counts[index]):
                run()
            best[index] = min(best[index], (time.process_time() - start) / counts[index])
    return best
