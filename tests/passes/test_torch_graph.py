"""Operators that run in PyTorch compute what ONNX Runtime computes."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcomp.errors import PassError, UsageError
from qcomp.execute import Session
from qcomp.passes.torch_graph import import_torch, run_nodes, untranslated

torch = pytest.importorskip("torch")

IMAGE, WIDE, ROWS = "float[2, 6, 9, 8] x", "float[2, 3, 8] x", "float[4, 6] x"

CASES = {
    "conv": (IMAGE, "y = Conv<pads=[1,1,1,1], strides=[2,1]>(x, w4633, b4)"),
    "conv in groups, dilated": (IMAGE, "y = Conv<group=2, dilations=[2,1]>(x, w4333, b4)"),
    "conv with uneven pads": (IMAGE, "y = Conv<pads=[0,1,2,1]>(x, w4633, b4)"),
    "conv with same pads": (IMAGE, 'y = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(x, w4633)'),
    "conv with same pads below": (IMAGE, 'y = Conv<auto_pad="SAME_LOWER",strides=[2,2]>(x, w4622)'),
    "conv of one axis": ("float[2, 3, 9] x", "y = Conv<pads=[1,1]>(x, w433, b4)"),
    "conv transpose": (IMAGE, "y = ConvTranspose<strides=[2,2], pads=[1,0,0,1]>(x, w6433, b4)"),
    "matmul": (WIDE, "y = MatMul(x, w85)"),
    "gemm": (ROWS, "y = Gemm<transB=1, alpha=0.5, beta=2.0>(x, w56, b5)"),
    "gemm of transposed rows": (ROWS, "y = Gemm<transA=1>(x, w45)"),
    "batch norm": (IMAGE, "y = BatchNormalization<epsilon=0.01>(x, b6, c6, d6, p6)"),
    "instance norm": (IMAGE, "y = InstanceNormalization(x, b6, c6)"),
    "layer norm": (WIDE, "y = LayerNormalization<axis=-1, epsilon=0.01>(x, b8, c8)"),
    "max pool": (IMAGE, "y = MaxPool<kernel_shape=[3,2], strides=[2,2], pads=[1,0,1,1]>(x)"),
    "average pool": (IMAGE, "y = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(x)"),
    "average pool that counts pads": (
        IMAGE,
        "y = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>(x)",
    ),
    "global pools": (IMAGE, "a = GlobalAveragePool(x) b = GlobalMaxPool(x) y = Add(a, b)"),
    "reduce mean": (IMAGE, "y = ReduceMean<keepdims=0>(x, last)"),
    "reduce l2": (WIDE, "y = ReduceL2(x, last)"),
    "reduce all": (WIDE, "a = ReduceMax(x) b = ReduceMin(x) c = ReduceSum(x) y = Sum(a, b, c)"),
    "reduce prod": (WIDE, "y = ReduceProd<keepdims=0>(x, last)"),
    "softmax": (WIDE, "y = Softmax<axis=1>(x)"),
    "log softmax": (WIDE, "y = LogSoftmax(x)"),
    "clip": (ROWS, "y = Clip(x, zero, half)"),
    "clip above": (ROWS, "y = Clip(x, , half)"),
    "gelu": (ROWS, 'a = Gelu<approximate="tanh">(x) b = Gelu(x) y = Add(a, b)'),
    "activations": (
        ROWS,
        "a = Relu(x) b = Sigmoid(x) c = Tanh(x) d = LeakyRelu<alpha=0.3>(x) e = Elu(x)"
        " f = HardSigmoid(x) g = HardSwish(x) h = Softplus(x) i = Erf(x) j = PRelu(x, b6)"
        " k = Mish(x) l = Softsign(x) y = Sum(a, b, c, d, e, f, g, h, i, j, k, l)",
    ),
    "functions of one number": (
        ROWS,
        "a = Abs(x) b = Sqrt(a) c = Exp(x) d = Log(a) e = Neg(x) f = Reciprocal(c) g = Floor(x)"
        " h = Ceil(x) i = Sin(x) j = Cos(x) k = Sign(x) l = Round(x)"
        " y = Mean(a, b, c, d, e, f, g, h, i, j, k, l)",
    ),
    "arithmetic": (ROWS, "a = Mul(x, b6) b = Sub(a, c6) c = Div(b, p6) y = Pow(c, two)"),
    "comparisons": (
        ROWS,
        "a = Greater(x, c6) b = Less(x, d6) c = Or(a, b) d = Not(c) e = GreaterOrEqual(x, b6)"
        " f = And(d, e) g = Xor(f, a) h = LessOrEqual(x, c6) i = Equal(g, h)"
        " y = Where(i, x, b6)",
    ),
    "min and max": (ROWS, "a = Min(x, b6, c6) b = Max(x, d6) y = Sub(a, b)"),
    "shapes": (
        WIDE,
        "s = Shape<start=1>(x) f = Reshape(x, flat) t = Transpose<perm=[1,0]>(f)"
        " u = Unsqueeze(t, front) v = Squeeze(u, front) w = Flatten<axis=1>(v)"
        " c = Cast<to=1>(s) r = ReduceSum(c) y = Add(w, r)",
    ),
    "expand and tile": (WIDE, "a = Expand(x, grown) b = Tile(a, twice) y = Identity(b)"),
    "concat and split": (
        WIDE,
        "a, b = Split<axis=2, num_outputs=2>(x) c = Concat<axis=1>(b, a)"
        " d, e = Split<axis=1>(c, parts) y = Concat<axis=-2>(e, d)",
    ),
    "slices": (WIDE, "a = Slice(x, one, minus, last, steps) y = Slice(a, one, nine, front)"),
    "gathers": (
        WIDE,
        "a = Gather<axis=2>(x, picks) b = GatherND(a, pairs) y = Gather(b, picks)",
    ),
    "gather elements": ("float[2, 2] x", "y = GatherElements<axis=1>(x, pairs)"),
    "pads": (
        IMAGE,
        'a = Pad(x, ends, half) b = Pad<mode="reflect">(a, ends) y = Pad<mode="edge">(b, ends)',
    ),
    "resize": (
        IMAGE,
        'a = Resize<mode="nearest", coordinate_transformation_mode="asymmetric",'
        ' nearest_mode="floor">(x, , doubled) y = Resize<mode="linear">(a, , doubled)',
    ),
    "masks": (
        "float[2, 4, 4] x",
        "m = ConstantOfShape<value = float[1] {2.0}>(square) t = Trilu<upper=0>(m)"
        " a = Mul(x, t) b = CumSum(a, one) y = Trilu(b, minus)",
    ),
    "ranges": (ROWS, "r = Range(i0, i6, i1) c = Cast<to=1>(r) y = Add(x, c)"),
    "largest": (ROWS, "a = ArgMax<axis=1>(x) y = Cast<to=1>(a)"),
    "dropout": (ROWS, "y = Dropout(x)"),
    "a constant": (ROWS, "c = Constant<value = float[1] {3.0}>() y = Mul(x, c)"),
}


def constants(rng):
    def w(*shape):
        return rng.normal(size=shape).astype(np.float32)

    def i(*numbers):
        return np.array(numbers, np.int64)

    return {
        **{f"w{name}": w(*map(int, name)) for name in ("4633", "4333", "4622", "433", "6433")},
        **{f"w{name}": w(*map(int, name)) for name in ("85", "56", "45")},
        **{f"{letter}{n}": w(n) for letter in "bcd" for n in (4, 5, 6, 8)},
        "p6": np.abs(w(6)) + 0.5,
        "zero": np.float32(0.0),
        "half": np.float32(0.5),
        "two": np.float32(2.0),
        "last": i(-1),
        "front": i(0),
        "one": i(1),
        "minus": i(-1),
        "nine": i(9),
        "steps": i(2),
        "flat": i(0, -1),
        "grown": i(3, 1, 3, 1),
        "twice": i(1, 1, 2, 1),
        "parts": i(4, 2),
        "picks": i(1, -1, 0),
        "pairs": np.array([[1, 0], [0, 1]], np.int64),
        "ends": i(0, 0, 1, 2, 0, 0, 2, 0),
        "doubled": np.array([1, 1, 2, 2], np.float32),
        "square": i(4, 4),
        **{f"i{n}": np.int64(n) for n in (0, 1, 6)},
    }


def model_of(inputs, body, rng):
    """A model of ONNX text, with those of the constants that it reads."""
    lines = body.replace(") ", ")\n")
    text = (
        f'<ir_version: 10, opset_import: ["" : 21]>\ng ({inputs}) => (float[...] y) {{\n{lines}\n}}'
    )
    proto = onnx.parser.parse_model(text.replace("float[...] y", "float y"))
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    used = {name for node in proto.graph.node for name in node.input}
    for name, array in constants(rng).items():
        if name in used:
            proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    return ir.from_proto(proto)


@pytest.mark.parametrize("case", CASES)
def test_an_operator_computes_what_onnx_runtime_computes(case):
    rng = np.random.default_rng(0)
    inputs, body = CASES[case]
    model = model_of(inputs, body, rng)
    (value,) = [v for v in model.graph.inputs]
    x = rng.normal(size=tuple(value.shape)).astype(np.float32)
    wanted = Session(model).run({"x": x})["y"]
    assert not untranslated(model.graph)
    values = {"x": torch.from_numpy(x)}
    run_nodes(model.graph, values, keep={"y"})
    assert set(values) == {"y"} or case in ("a constant",)
    assert values["y"].shape == wanted.shape
    np.testing.assert_allclose(values["y"].numpy(), wanted, rtol=2e-5, atol=2e-5)


def test_gradients_reach_inputs_and_weights_that_are_given():
    rng = np.random.default_rng(0)
    model = model_of(IMAGE, "a = Conv(x, w4633, b4)\nb = Relu(a)\ny = GlobalAveragePool(b)", rng)
    x = torch.randn(2, 6, 9, 8, requires_grad=True)
    w = torch.randn(4, 6, 3, 3, requires_grad=True)
    values = {"x": x, "w4633": w}
    run_nodes(model.graph, values)
    values["y"].square().sum().backward()
    assert float(x.grad.abs().sum()) > 0
    assert float(w.grad.abs().sum()) > 0


def test_what_is_not_translated_is_named():
    model = model_of(ROWS, "a = Det(x)\ny = Relu(a)", np.random.default_rng(0))
    assert list(untranslated(model.graph)) == ["Det"]
    with pytest.raises(PassError, match="Det has no gradient"):
        run_nodes(model.graph, {"x": torch.zeros(6, 6)})
    ceil = model_of(
        IMAGE, "y = MaxPool<kernel_shape=[2,2], ceil_mode=1>(x)", np.random.default_rng(0)
    )
    with pytest.raises(PassError, match="ceil_mode"):
        run_nodes(ceil.graph, {"x": torch.zeros(2, 6, 9, 8)})


def test_without_pytorch_the_way_to_install_it_is_said(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UsageError, match=r"(?s)learned rounding needs PyTorch.*qcomp\[torch\]"):
        import_torch("learned rounding")
