"""The NumPy integer reference of every operator against ONNX Runtime: at most one step apart."""

import numpy as np
import pytest

from qcomp.passes.quantize import integer_reference as reference
from qcomp.passes.quantize.arithmetic import pack_int4, quantize_blocks


@pytest.fixture
def ort_run(build, run):
    """Run one operator with the given arrays: u8, s8 and float32 arrays become inputs."""
    types = {"uint8": "uint8", "int8": "int8", "int32": "int32", "float32": "float"}

    def runner(op, arrays, out="uint8", attributes="", domain="com.microsoft."):
        feeds = {n: a for n, a in arrays.items() if a.ndim and n.isupper()}
        weights = {n: a for n, a in arrays.items() if n not in feeds}
        inputs = ", ".join(
            f"{types[str(a.dtype)]}[{','.join(map(str, a.shape))}] {n}" for n, a in feeds.items()
        )
        text = f"g ({inputs}) => ({out} y) {{ y = {domain}{op}{attributes}({', '.join(arrays)}) }}"
        return run(build(text, weights), feeds)["y"]

    return runner


def f32(value):
    return np.asarray(value, np.float32)


def u8(value):
    return np.asarray(value, np.uint8)


def check(ours, theirs, exact=0.99):
    """At most one step apart everywhere, and nearly always equal."""
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    distance = np.abs(ours.astype(np.int64) - theirs.astype(np.int64))
    assert distance.max(initial=0) <= 1
    assert (distance == 0).mean() >= exact


@pytest.mark.parametrize("zero", [0, 37, 128, 255])
def test_requantize_table_and_saturation(zero):
    rows = [line.split("|")[1:-1] for line in reference.__doc__.splitlines() if line[:1] == "|"]
    for acc, factor, z, result in rows[2:]:
        found = reference.requantize(np.array([int(acc)]), f32(float(factor)), int(z))
        assert found[0] == int(result.split("(")[0]), acc
    ends = reference.requantize(np.array([-(2**30), 2**30]), f32(0.5), zero)
    assert ends.tolist() == [0, 255]


@pytest.mark.parametrize(
    ("options", "group", "shape"),
    [
        ({"pads": (1, 1, 1, 1)}, 1, (6, 4, 3, 3)),
        ({"pads": (1, 0, 2, 1), "strides": (2, 1)}, 1, (6, 4, 3, 2)),
        ({"dilations": (2, 2), "pads": (2, 2, 2, 2)}, 2, (6, 2, 3, 3)),
        ({"pads": (1, 1, 1, 1)}, 4, (4, 1, 3, 3)),
        ({}, 1, (5, 4, 1, 1)),
    ],
)
def test_qlinear_conv(ort_run, rng, options, group, shape):
    x = rng.integers(0, 256, (3, 4, 9, 10), np.uint8)
    w = rng.integers(-127, 128, shape, np.int8)
    w_scale = f32(rng.uniform(0.001, 0.01, shape[0]))
    bias = rng.integers(-5000, 5000, shape[0]).astype(np.int32)
    text = ", ".join(f"{k}={list(v)}" for k, v in options.items())
    theirs = ort_run(
        "QLinearConv",
        {
            "X": x,
            "xs": f32(0.02),
            "xz": u8(117),
            "w": w,
            "ws": w_scale,
            "wz": np.zeros(shape[0], np.int8),
            "ys": f32(0.13),
            "yz": u8(99),
            "b": bias,
        },
        attributes=f"<group={group}{', ' if text else ''}{text}>",
        domain="",
    )
    ours = reference.qlinear_conv(x, 0.02, 117, w, w_scale, 0.13, 99, bias, group=group, **options)
    check(ours, theirs, exact=1.0)


def test_conv_integer(ort_run, rng):
    x = rng.integers(0, 256, (2, 3, 8, 8), np.uint8)
    w = rng.integers(-127, 128, (4, 3, 3, 3), np.int8)
    theirs = ort_run(
        "ConvInteger",
        {"X": x, "w": w, "xz": u8(100)},
        out="int32",
        domain="",
        attributes="<pads=[1,1,1,1]>",
    )
    ours = reference.conv_integer(x, w, 100, pads=(1, 1, 1, 1))
    assert (ours == theirs).all()


def test_matmul_integer(ort_run, rng):
    a = rng.integers(0, 256, (2, 5, 33), np.uint8)
    b = rng.integers(-127, 128, (33, 7), np.int8)
    theirs = ort_run("MatMulInteger", {"A": a, "b": b, "az": u8(9)}, out="int32", domain="")
    assert (reference.matmul_integer(a, b, 9) == theirs).all()


def test_qlinear_matmul_with_a_scale_a_column(ort_run, rng):
    a = rng.integers(0, 256, (2, 5, 64), np.uint8)
    b = rng.integers(-127, 128, (64, 12), np.int8)
    scale = f32(rng.uniform(0.001, 0.01, 12))
    zero = np.zeros(12, np.int8)
    theirs = ort_run(
        "QLinearMatMul",
        {
            "A": a,
            "s": f32(0.01),
            "z": u8(120),
            "b": b,
            "bs": scale,
            "bz": zero,
            "ys": f32(0.05),
            "yz": u8(128),
        },
        domain="",
    )
    check(reference.qlinear_matmul(a, 0.01, 120, b, scale, zero, 0.05, 128), theirs, 1.0)


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("quantized_output", [False, True])
def test_qgemm(ort_run, rng, transpose, quantized_output):
    a = rng.integers(0, 256, (9, 40), np.uint8)
    b = rng.integers(-127, 128, (11, 40) if transpose else (40, 11), np.int8)
    scale = f32(rng.uniform(0.001, 0.01, 11))
    bias = rng.integers(-9000, 9000, 11).astype(np.int32)
    arrays = {
        "A": a,
        "s": f32(0.01),
        "z": u8(120),
        "b": b,
        "bs": scale,
        "bz": np.zeros(11, np.int8),
        "c": bias,
    }
    if quantized_output:
        arrays |= {"ys": f32(0.05), "yz": u8(128)}
    out = "uint8" if quantized_output else "float"
    theirs = ort_run("QGemm", arrays, out=out, attributes=f"<transB={int(transpose)}>")
    ours = reference.qgemm(
        a,
        0.01,
        120,
        b,
        scale,
        bias,
        0.05 if quantized_output else None,
        128,
        transpose_b=transpose,
    )
    if quantized_output:
        check(ours, theirs, 1.0)
    else:
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_matmul_integer_to_float(ort_run, rng):
    a = rng.integers(0, 256, (3, 64), np.uint8)
    b = rng.integers(-127, 128, (64, 12), np.int8)
    scale, bias = f32(rng.uniform(0.001, 0.01, 12)), f32(rng.normal(size=12))
    theirs = ort_run(
        "MatMulIntegerToFloat",
        {
            "A": a,
            "b": b,
            "s": f32(0.01),
            "bs": scale,
            "z": u8(120),
            "bz": np.zeros(12, np.int8),
            "c": bias,
        },
        out="float",
    )
    ours = reference.matmul_integer_to_float(a, 0.01, 120, b, scale, 0, bias)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("offset", [-3.0, 0.0, 3.0])
def test_dynamic_quantize_linear(ort_run, rng, offset):
    x = f32(rng.normal(size=(7, 33)) + offset)
    theirs = ort_run(
        "DynamicQuantizeMatMul",
        {"X": x, "b": np.eye(33, dtype=np.int8), "bs": f32(1.0)},
        out="float",
    )
    levels, scale, zero = reference.dynamic_quantize_linear(x)
    np.testing.assert_allclose((levels.astype(np.float32) - zero) * scale, theirs, rtol=1e-6)
    assert reference.dynamic_quantize_linear(f32([0.0, 0.0]))[1] > 0


def test_dynamic_quantize_linear_table():
    levels, scale, zero = reference.dynamic_quantize_linear(f32([-1, 1.55]))
    assert (levels.tolist(), float(scale), zero) == ([0, 255], pytest.approx(0.01), 100)
    levels, scale, zero = reference.dynamic_quantize_linear(f32([1.0, 2.55]))
    assert (levels.tolist(), float(scale), zero) == ([100, 255], pytest.approx(0.01), 0)


def test_dynamic_quantize_matmul(ort_run, rng):
    x = f32(rng.normal(size=(6, 64)))
    b = rng.integers(-127, 128, (64, 12), np.int8)
    scale, bias = f32(rng.uniform(0.001, 0.01, 12)), f32(rng.normal(size=12))
    arrays = {"X": x, "b": b, "bs": scale, "bz": np.zeros(12, np.int8), "c": bias}
    theirs = ort_run("DynamicQuantizeMatMul", arrays, out="float")
    ours = reference.dynamic_quantize_matmul(x, b, scale, bias)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("op", "function"),
    [
        ("QLinearAdd", reference.qlinear_add),
        ("QLinearMul", reference.qlinear_mul),
    ],
)
def test_elementwise(ort_run, rng, op, function):
    a = rng.integers(0, 256, (64, 100), np.uint8)
    b = rng.integers(0, 256, (64, 100), np.uint8)
    for ys, yz in ((0.031, 128), (0.0513, 7), (0.2, 255)):
        theirs = ort_run(
            op,
            {
                "A": a,
                "s": f32(0.017),
                "z": u8(131),
                "B": b,
                "t": f32(0.023),
                "w": u8(12),
                "ys": f32(ys),
                "yz": u8(yz),
            },
        )
        check(function(a, 0.017, 131, b, 0.023, 12, ys, yz), theirs)


def test_concat(ort_run, rng):
    a = rng.integers(0, 256, (2, 3, 5), np.uint8)
    b = rng.integers(0, 256, (2, 4, 5), np.uint8)
    theirs = ort_run(
        "QLinearConcat",
        {
            "ys": f32(0.03),
            "yz": u8(90),
            "A": a,
            "s": f32(0.017),
            "z": u8(131),
            "B": b,
            "t": f32(0.04),
            "w": u8(12),
        },
        attributes="<axis=1>",
    )
    check(reference.qlinear_concat([(a, 0.017, 131), (b, 0.04, 12)], 0.03, 90, 1), theirs, 1.0)


def test_global_average_pool(ort_run, rng):
    x = rng.integers(0, 256, (5, 16, 7, 9), np.uint8)
    theirs = ort_run(
        "QLinearGlobalAveragePool",
        {"X": x, "s": f32(0.017), "z": u8(131), "ys": f32(0.004), "yz": u8(120)},
    )
    check(reference.qlinear_global_average_pool(x, 0.017, 131, 0.004, 120), theirs)


def test_tables_of_unary_operators(ort_run):
    x = np.arange(256, dtype=np.uint8).reshape(1, 256)
    arrays = {"X": x, "s": f32(0.05), "z": u8(128), "ys": f32(1 / 256), "yz": u8(0)}
    theirs = ort_run("QLinearSigmoid", arrays)
    check(reference.lookup(x, 0.05, 128, 1 / 256, 0, lambda r: 1 / (1 + np.exp(-r))), theirs)
    arrays |= {"ys": f32(0.03), "yz": u8(20)}
    theirs = ort_run("QLinearLeakyRelu", arrays, attributes="<alpha=0.1>")
    leaky = reference.lookup(x, 0.05, 128, 0.03, 20, lambda r: np.where(r > 0, r, r * f32(0.1)))
    check(leaky, theirs)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("level", [0, 4])
@pytest.mark.parametrize("columns", [64, 80])
def test_matmul_nbits(ort_run, rng, bits, symmetric, level, columns):
    a = f32(rng.normal(size=(3, columns)))
    w = f32(rng.normal(size=(24, columns)))
    levels, scale, zero = quantize_blocks(w, 32, bits, symmetric)
    packed = pack_int4(levels) if bits == 4 else levels
    zeros = pack_int4(zero) if bits == 4 else zero
    arrays = {"A": a, "b": packed, "s": scale} | ({} if symmetric else {"z": zeros})
    theirs = ort_run(
        "MatMulNBits",
        arrays,
        out="float",
        attributes=f"<K={columns}, N=24, bits={bits}, block_size=32, accuracy_level={level}>",
    )
    ours = reference.matmul_nbits(
        a,
        packed,
        scale,
        None if symmetric else zeros,
        columns=columns,
        group=32,
        bits=bits,
        accuracy_level=level,
    )
    exact = reference.matmul_nbits(
        a,
        packed,
        scale,
        None if symmetric else zeros,
        columns=columns,
        group=32,
        bits=bits,
        accuracy_level=0,
    )
    # One step of the int8 activation in one product is the unit here.
    step = np.abs(a).max() / 127 * np.abs(w).max()
    assert np.abs(ours - theirs).max() <= (1e-5 if level == 0 else step)
    assert np.abs(exact - a @ w.T).max() < 16 * np.sqrt(columns) / (1 << bits)
