"""A BatchNormalization goes into the layer before it, in every kind of layer (arXiv:1712.05877)."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from qcomp.execute import HybridSession
from qcomp.frontends.onnx_model import OnnxFrontend
from qcomp.ir.program import Program
from qcomp.passes.graph import fuse_batch_norm
from qcomp.passes.graph.fuse_batch_norm import FuseBatchNorm
from qcomp.passmanager import Context
from tests import models

NORM = "y = BatchNormalization <epsilon: float = 0.01> (c, gamma, beta, mean, var)"
CONV = "float[b, 4, 9, 9] x"
FLAT = "float[b, 6] x"

LAYERS = [
    ("conv", CONV, "c = Conv (x, w)", {"w": (8, 4, 3, 3)}, 8),
    ("conv with bias", CONV, "c = Conv (x, w, b)", {"w": (8, 4, 3, 3), "b": (8,)}, 8),
    ("conv in groups", CONV, "c = Conv <group: int = 2> (x, w)", {"w": (6, 2, 3, 3)}, 6),
    ("depthwise", CONV, "c = Conv <group: int = 4> (x, w, b)", {"w": (4, 1, 3, 3), "b": (4,)}, 4),
    ("transposed", CONV, "c = ConvTranspose (x, w, b)", {"w": (4, 5, 3, 3), "b": (5,)}, 5),
    (
        "transposed in groups",
        CONV,
        "c = ConvTranspose <group: int = 2> (x, w)",
        {"w": (4, 3, 2, 2)},
        6,
    ),
    ("gemm", FLAT, "c = Gemm (x, w, b)", {"w": (6, 5), "b": (5,)}, 5),
    ("gemm without bias", FLAT, "c = Gemm <alpha: float = 0.5> (x, w)", {"w": (6, 5)}, 5),
    (
        "gemm transposed with factors",
        FLAT,
        "c = Gemm <transB: int = 1, alpha: float = 0.5, beta: float = 3.0> (x, w, b)",
        {"w": (5, 6), "b": (1, 5)},
        5,
    ),
    ("gemm with one number as bias", FLAT, "c = Gemm (x, w, b)", {"w": (6, 5), "b": ()}, 5),
    ("matmul", FLAT, "c = MatMul (x, w)", {"w": (6, 5)}, 5),
]


def build(signature: str, body: str, shapes: dict[str, tuple[int, ...]], channels: int) -> Program:
    rng = np.random.default_rng(channels)
    weights: dict[str, np.ndarray] = {
        name: np.asarray(rng.standard_normal(shape), np.float32) for name, shape in shapes.items()
    }
    weights |= {
        "gamma": rng.standard_normal(channels).astype(np.float32),
        "beta": rng.standard_normal(channels).astype(np.float32),
        "mean": rng.standard_normal(channels).astype(np.float32),
        "var": rng.uniform(0.1, 2, channels).astype(np.float32),
    }
    text = f'<ir_version: 10, opset_import: ["" : 21]> g ({signature}) => (float[] y) {{ {body} }}'
    from onnx import numpy_helper, parser

    proto = parser.parse_model(text)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    for name, array in weights.items():
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    program = OnnxFrontend().read(proto)
    from qcomp.ir.shapes import infer_shapes

    infer_shapes(program)
    return program


def feeds(signature: str) -> dict[str, np.ndarray]:
    shape = (3, 4, 9, 9) if signature == CONV else (3, 6)
    return {"x": np.random.default_rng(1).standard_normal(shape).astype(np.float32)}


def ops(program: Program) -> list[str]:
    return [node.op_type for node in program.model.graph]


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize(
    ("name", "signature", "body", "shapes", "channels"), LAYERS, ids=[layer[0] for layer in LAYERS]
)
def test_the_fused_layer_computes_the_same(
    name: str,
    signature: str,
    body: str,
    shapes: dict[str, tuple[int, ...]],
    channels: int,
    lazy: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if lazy:
        monkeypatch.setattr(fuse_batch_norm, "_LAZY_FROM", 1)
    program = build(signature, f"{body} {NORM}", shapes, channels)
    x = feeds(signature)
    before = HybridSession(program).run(x)["y"]
    assert FuseBatchNorm().run(program, Context())
    assert "BatchNormalization" not in ops(program)
    assert len(ops(program)) == (2 if name == "matmul" else 1)
    after = HybridSession(program).run(x)["y"]
    np.testing.assert_allclose(after, before, rtol=2e-4, atol=2e-5)
    names = set(program.model.graph.initializers)
    assert not {"w", "b", "gamma", "beta", "mean", "var"} & names
    fused = program.model.graph.initializers["w_fused"].const_value
    assert isinstance(fused, ir.LazyTensor) == lazy
    assert not FuseBatchNorm().run(program, Context())


@pytest.mark.parametrize(
    ("why", "body"),
    [
        (
            "another node reads the layer",
            f"c = Conv (x, w) {NORM.replace('y =', 'n =')} y = Add (n, c)",
        ),
        (
            "it trains",
            "c = Conv (x, w) y, m, v = BatchNormalization <training_mode: int = 1> "
            "(c, gamma, beta, mean, var)",
        ),
        ("something stands between", f"h = Conv (x, w) c = Relu (h) {NORM}"),
        ("the weight is computed", f"u = Neg (w) c = Conv (x, u) {NORM}"),
        (
            "the mean is computed",
            "c = Conv (x, w) m = Neg (mean) y = BatchNormalization (c, gamma, beta, m, var)",
        ),
    ],
)
def test_it_stays_where_it_cannot_be_fused(why: str, body: str) -> None:
    program = build(CONV, body, {"w": (8, 4, 3, 3)}, 8)
    before = ops(program)
    assert not FuseBatchNorm().run(program, Context())
    assert ops(program) == before


def test_a_weight_that_another_layer_shares_stays_for_it() -> None:
    body = f"c = Conv (x, w) {NORM.replace('y =', 'n =')} d = Conv (x, w) y = Add (n, d)"
    program = build(CONV, body, {"w": (8, 4, 3, 3)}, 8)
    before = HybridSession(program).run(feeds(CONV))["y"]
    assert FuseBatchNorm().run(program, Context())
    assert {"w", "w_fused"} <= set(program.model.graph.initializers)
    after = HybridSession(program).run(feeds(CONV))["y"]
    np.testing.assert_allclose(after, before, rtol=2e-4, atol=2e-5)


def test_a_whole_network_computes_the_same() -> None:
    program = OnnxFrontend().read(models.small_cnn())
    x = {"x": np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)}
    before = HybridSession(program).run(x)["y"]
    assert FuseBatchNorm().run(program, Context())
    np.testing.assert_allclose(HybridSession(program).run(x)["y"], before, rtol=1e-5, atol=1e-6)
