"""Small graphs for the quantization tests, written as ONNX text."""

from collections.abc import Callable, Mapping

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from qcomp.ir.program import Program
from qcomp.passmanager import Context, Pipeline
from qcomp.quantization import FloatReference

Arrays = Mapping[str, NDArray[np.generic]]


def build_program(body: str, weights: Arrays, opset: int = 21) -> Program:
    """The program of an ONNX text graph with the given initializers."""
    text = f'<ir_version: 10, opset_import: ["" : {opset}, "com.microsoft" : 1]>\n{body}'
    proto = onnx.parser.parse_model(text)
    for name, array in weights.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    onnx.checker.check_model(proto)
    return Program(ir.from_proto(proto))


@pytest.fixture
def build() -> Callable[..., Program]:
    return build_program


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def run() -> Callable[..., dict[str, NDArray[np.generic]]]:
    """Run a program in ONNX Runtime, all optimisations on."""

    def runner(
        program: Program, feeds: Arrays, taps: tuple[str, ...] = ()
    ) -> dict[str, NDArray[np.generic]]:
        from qcomp.execute import HybridSession

        return HybridSession(program, taps=taps).run(feeds)

    return runner


@pytest.fixture
def compiled() -> Callable[..., Context]:
    """Run a pipeline with calibration data; the program is changed, the context is returned."""

    def compiler(program: Program, pipeline: str, data: Arrays | None = None) -> Context:
        context = Context()
        if data is not None:
            context.calibration = lambda: iter([data])
        Pipeline.parse(pipeline).run(program, context)
        return context

    return compiler


@pytest.fixture
def mlp(rng: np.random.Generator) -> Program:
    """Two Gemm layers with a Relu between them."""
    return build_program(
        """
        g (float[n, 64] x) => (float[n, 10] y) {
            a = Gemm<transB=1>(x, w1, b1)
            h = Relu(a)
            y = Gemm(h, w2, b2)
        }""",
        {
            "w1": rng.normal(0, 0.1, (48, 64)).astype(np.float32),
            "b1": rng.normal(0, 0.1, 48).astype(np.float32),
            "w2": rng.normal(0, 0.1, (48, 10)).astype(np.float32),
            "b2": rng.normal(0, 0.1, 10).astype(np.float32),
        },
    )


@pytest.fixture
def cnn(rng: np.random.Generator) -> Program:
    """Every operator of the static plan: Conv, residual Add, Mul, Concat, pools, Sigmoid, Gemm."""

    def w(*shape: int) -> NDArray[np.float32]:
        return rng.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape).astype(np.float32)

    return build_program(
        """
        g (float[n, 3, 12, 12] x) => (float[n, 10] y) {
            c1 = Conv<pads=[1,1,1,1]>(x, w1, b1)
            r1 = Relu(c1)
            c2 = Conv<pads=[1,1,1,1], group=8>(r1, w2)
            k2 = Clip(c2, zero, six)
            c3 = Conv<pads=[1,1,1,1]>(k2, w3, b3)
            s = Add(c3, r1)
            r3 = Relu(s)
            gate = Sigmoid(c3)
            m = Mul(gate, r3)
            cat = Concat<axis=1>(m, r1)
            p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(cat)
            c4 = Conv<strides=[2,2], dilations=[1,1]>(p, w4, b4)
            l4 = LeakyRelu<alpha=0.1>(c4)
            gap = GlobalAveragePool(l4)
            f = Flatten(gap)
            y = Gemm<transB=1>(f, w5, b5)
        }""",
        {
            "w1": w(8, 3, 3, 3),
            "b1": w(8, 1)[:, 0],
            "w2": w(8, 1, 3, 3),
            "w3": w(8, 8, 3, 3),
            "b3": w(8, 1)[:, 0],
            "w4": w(12, 16, 3, 3),
            "b4": w(12, 1)[:, 0],
            "w5": w(10, 12),
            "b5": w(10, 1)[:, 0],
            "zero": np.float32(0.0),
            "six": np.float32(6.0),
        },
    )


@pytest.fixture
def attention(rng: np.random.Generator) -> Program:
    """One attention head with a mask of -1e4, a weight shared by two MatMuls, a LayerNorm."""
    return build_program(
        """
        g (float[n, 8, 32] x, float[n, 1, 8] mask) => (float[n, 8, 32] y) {
            q = MatMul(x, wq)
            k = MatMul(x, wk)
            v = MatMul(x, wv)
            kt = Transpose<perm=[0, 2, 1]>(k)
            scores = MatMul(q, kt)
            masked = Add(scores, mask)
            p = Softmax<axis=-1>(masked)
            o = MatMul(p, v)
            r = Add(o, x)
            norm = LayerNormalization<axis=-1>(r, gamma, beta)
            y = MatMul(norm, wv)
        }""",
        {
            "wq": rng.normal(0, 0.3, (32, 32)).astype(np.float32),
            "wk": rng.normal(0, 0.3, (32, 32)).astype(np.float32),
            "wv": rng.normal(0, 0.3, (32, 32)).astype(np.float32),
            "gamma": np.ones(32, np.float32),
            "beta": np.zeros(32, np.float32),
        },
    )


@pytest.fixture
def float_of() -> Callable[[Context], Program]:
    """The float program that a quantizing pass has kept."""

    def find(context: Context) -> Program:
        return context.need(FloatReference, "quantize-static").program

    return find
