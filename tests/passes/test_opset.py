"""Old forms of operators are brought to a new opset, and do there what they did before."""

from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcomp.equivalence.graphs import check_programs
from qcomp.errors import PassError
from qcomp.ir.program import Program
from qcomp.passes.graph import canonicalise, opset_adapters
from qcomp.passes.graph.canonicalise import Canonicalise
from qcomp.passes.graph.rewriting import require_opset
from qcomp.passmanager import Context

RNG = np.random.default_rng(3)
ONES, SOME = np.ones(6, np.float32), RNG.normal(size=6).astype(np.float32)
IMAGE, BIGGER = "float[b,3,4,4] x", "float[b,3,8,8] y"
TWICE = np.array([1, 1, 2, 2], np.float32)
NONE = np.zeros(0, np.float32)

CASES: Mapping[str, tuple[int, str, str, str, Mapping[str, object]]] = {
    "softmax over all axes from 1 on": (11, IMAGE, "float[b,3,4,4] y", "y = Softmax(x)", {}),
    "softmax of unknown rank": (11, "float[?] x", "float[?] y", "y = Softmax<axis=0>(x)", {}),
    "softmax inside, over two axes": (
        *(12, IMAGE, "float[b,3,4,4] y"),
        *("s = LogSoftmax<axis=2>(x)\n h = Hardmax<axis=3>(s)\n y = Add(s, h)", {}),
    ),
    "clip with limits as attributes": (
        *(10, "float[b,8] x", "float[b,8] y", "y = Clip<min=-0.5,max=0.5>(x)", {}),
    ),
    "dropout with its ratio as attribute": (
        *(11, "float[b,8] x", "float[b,8] y", "r, m = Dropout<ratio=0.3>(x)\n y = Relu(r)", {}),
    ),
    "sums with axes as attributes": (
        *(11, IMAGE, "float[b,3,1,1] y", "y = ReduceSum<axes=[2,-1],keepdims=1>(x)", {}),
    ),
    "means with axes as attributes": (
        *(13, IMAGE, "float[b] y", "y = ReduceMean<axes=[-1,1,2],keepdims=0>(x)", {}),
    ),
    "axes of squeeze and unsqueeze": (
        *(11, IMAGE, "float[b,3,4,4] y"),
        *("u = Unsqueeze<axes=[1,3]>(x)\n y = Squeeze<axes=[1,3]>(u)", {}),
    ),
    "splits": (
        *(11, IMAGE, "float[b,3,2,4] y"),
        "a, c = Split<axis=2>(x)\n d, e = Split<axis=1,split=[1,2]>(a)\ny = Concat<axis=1>(e, d)",
        {},
    ),
    "batch normalization": (
        *(9, IMAGE, "float[b,3,4,4] y", "y = BatchNormalization(x, s, t, m, v)"),
        {"s": SOME[:3], "t": SOME[:3], "m": SOME[:3], "v": ONES[:3]},
    ),
    "group normalization with scales of groups": (
        *(18, "float[b,6,4,4] x", "float[b,6,4,4] y"),
        *("y = GroupNormalization<num_groups=3>(x, s, t)", {"s": SOME[:3], "t": SOME[3:]}),
    ),
    "upsample with scales as attribute": (
        *(7, IMAGE, BIGGER, 'y = Upsample<mode="linear",scales=[1.,1.,2.,2.]>(x)', {}),
    ),
    "upsample": (9, IMAGE, BIGGER, 'y = Upsample<mode="nearest">(x, sc)', {"sc": TWICE}),
    "resize before it had modes": (
        *(10, IMAGE, BIGGER, 'y = Resize<mode="linear">(x, sc)', {"sc": TWICE}),
    ),
    "resize with an empty region": (
        *(11, IMAGE, BIGGER),
        'y = Resize<mode="linear",coordinate_transformation_mode="align_corners">(x, roi, sc)',
        {"roi": NONE, "sc": TWICE},
    ),
    "resize to a size": (
        *(11, "float[2,3,4,4] x", "float[2,3,8,8] y", 'y = Resize<mode="cubic">(x, roi, sc, to)'),
        {"roi": NONE, "sc": NONE, "to": np.array([2, 3, 8, 8])},
    ),
    "padding with attributes": (
        *(10, IMAGE, "float[b,3,6,6] y", "y = Pad<pads=[0,0,1,1,0,0,1,1],value=0.5>(x)", {}),
    ),
    "slices with attributes": (
        *(9, IMAGE, "float[b,2,4,4] y", "y = Slice<axes=[1],starts=[0],ends=[2]>(x)", {}),
    ),
    "top k as attribute": (9, "float[b,8] x", "float[b,3] y", "y, i = TopK<k=3>(x)", {}),
    "modes of grid sample": (
        *(16, "float[b,2,4,4] x, float[b,3,3,2] g", "float[b,2,3,3] y"),
        *('y = GridSample<mode="bicubic">(x, g)', {}),
    ),
    "the axis of a Fourier transform": (
        *(17, "float[b,8,1] x", "float[b,8,2] y", "y = DFT<axis=1>(x)", {}),
    ),
    "regions of interest": (
        *(10, "float[1,2,8,8] x", "float[2,2,1,1] y", "y = RoiAlign(x, r, i)"),
        {"r": np.array([[0, 0, 5, 5], [1, 2, 7, 7]], np.float32), "i": np.array([0, 0])},
    ),
    "a recurrent layer": (
        *(11, "float[5,b,8] x", "float[5,1,b,4] y", "y, h, c = LSTM<hidden_size=4>(x, w, r)"),
        {
            "w": RNG.normal(size=(1, 16, 8)).astype(np.float32),
            "r": RNG.normal(size=(1, 16, 4)).astype(np.float32),
        },
    ),
    "operators in the branches of an If": (
        *(11, "float[b,3,8] x, bool k", "float[b,3,8] y"),
        "y = If (k) <"
        "then_branch = t () => (float[b,3,8] a) { s = ReduceSum<axes=[2]>(x)\n a = Add(x, s) }, "
        "else_branch = e () => (float[b,3,8] d) { d = Softmax(x) }>",
        {},
    ),
}


def build(opset: int, inputs: str, outputs: str, body: str, weights: Mapping[str, object]):
    text = f'<ir_version: 8, opset_import: ["" : {opset}]>\ng ({inputs}) => ({outputs}) {{{body}}}'
    proto = onnx.parser.parse_model(text.replace("float[?]", "float[]"))
    for name, array in weights.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    if "[?]" in inputs:
        for info in (*proto.graph.input, *proto.graph.output):
            info.type.tensor_type.ClearField("shape")
    return Program(ir.from_proto(proto))


@pytest.mark.parametrize("case", CASES)
def test_an_old_form_means_the_same_in_opset_21_and_23(case: str) -> None:
    for wanted in (21, 23):
        if (wanted, case) == (23, "regions of interest"):
            continue  # ONNX Runtime has no kernel for the RoiAlign of opset 22
        program = build(*CASES[case])
        before = program.copy()
        context = Context()
        Canonicalise(min_opset=wanted).run(program, context)
        assert program.model.graph.opset_imports[""] == wanted
        unknown = "unknown rank" in case
        assert bool(context.warnings) == unknown
        feeds = {"x": RNG.normal(size=(2, 3, 4)).astype(np.float32)} if unknown else None
        verdict = check_programs(before, program, inputs=feeds)
        assert verdict.equal, verdict
        if not unknown:
            onnx.checker.check_model(ir.to_proto(program.model))


def test_functions_are_raised_with_the_graph_that_calls_them() -> None:
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 12, "my": 1]>
        g (float[b,3,8] x) => (float[b,3,8] y) { y = my.block(x) }
        <domain: "my", opset_import: ["" : 11]>
        block (x) => (y) { s = Softmax(x)
          t = ReduceSum<axes=[2]>(s)
          y = Add(t, x) }"""
    )
    program = Program(ir.from_proto(proto))
    before = program.copy()
    Canonicalise().run(program, Context())
    (function,) = program.model.functions.values()
    assert program.model.graph.opset_imports[""] == function.opset_imports[""] == 21
    assert check_programs(before, program).equal


def test_names_and_large_weights_are_the_same_after_a_conversion() -> None:
    weight = RNG.normal(size=(64, 64)).astype(np.float32)
    program = build(
        *(11, "float[b,64] x", "float[b,1] y"),
        *("m = MatMul(x, w)\n s = Softmax(m)\n y = ReduceSum<axes=[1]>(s)", {"w": weight}),
    )
    tensor = program.model.graph.initializers["w"].const_value
    for node in program.model.graph:
        node.name = f"/layer/{node.op_type}"
    Canonicalise().run(program, Context())
    assert program.model.graph.initializers["w"].const_value is tensor
    names = {f"/layer/{kind}" for kind in ("MatMul", "Softmax", "ReduceSum")}
    assert {node.name for node in program.model.graph} == names


def test_a_conversion_that_changes_outputs_is_taken_back_and_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def wrong(editor: object, node: ir.Node) -> None:
        node.attributes["axis"] = ir.AttrInt64("axis", 0)

    monkeypatch.setitem(opset_adapters._ADAPTERS[13], "Softmax", wrong)
    program = build(*CASES["softmax over all axes from 1 on"])
    before, context = program.copy(), Context()
    Canonicalise().run(program, context)
    assert program.model.graph.opset_imports[""] == 11
    assert "changes what it computes" in context.warnings[0]
    assert check_programs(before, program).equal


def test_an_opset_whose_kernels_the_runtime_lacks_is_not_taken() -> None:
    program, context = build(*CASES["regions of interest"]), Context()
    Canonicalise(min_opset=23).run(program, context)
    assert program.model.graph.opset_imports[""] == 10
    assert "ONNX Runtime has no kernels for" in context.warnings[0]


def test_the_outputs_are_compared_on_calibration_data_where_there_is_some() -> None:
    """Random inputs do not fit this graph: its last axis has 4 parts of 3."""
    parts = (11, "float[b,k] x", "float[b,4,1] y")
    body = "r = Reshape(x, to)\n y = ReduceSum<axes=[2]>(r)"
    program, context = build(*parts, body, {"to": np.array([0, 4, 3])}), Context()
    context.calibration = lambda: iter([{"x": RNG.normal(size=(5, 12)).astype(np.float32)}])
    Canonicalise().run(program, context)
    assert context.warnings == []
    program, context = build(*parts, body, {"to": np.array([0, 4, 3])}), Context()
    Canonicalise().run(program, context)
    assert "was not checked: the reference does not run" in context.warnings[0]


def test_a_large_model_is_converted_unchecked_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(canonicalise, "_COMPARED", -1)
    context = Context()
    Canonicalise().run(build(*CASES["means with axes as attributes"]), context)
    assert context.warnings == [
        "the conversion from opset 13 to 21 was not checked: the model is large"
    ]


def test_an_operator_that_cannot_be_converted_is_one_clear_error_where_the_opset_is_needed() -> (
    None
):
    program = build(
        *(9, IMAGE, "float[b,3,4,4] y, float[3] n"),
        "y, n, w_, p, q = BatchNormalization(x, s, t, m, v)",
        {"s": SOME[:3], "t": SOME[:3], "m": SOME[:3], "v": ONES[:3]},
    )
    context = Context()
    Canonicalise().run(program, context)
    assert program.model.graph.opset_imports[""] == 9
    with pytest.raises(PassError) as caught:
        require_opset(program.model, 13, "DequantizeLinear by channel", context)
    text = str(caught.value)
    assert "opset 9, at least 13 is needed" in text
    assert "training" in text or "BatchNormalization" in text
