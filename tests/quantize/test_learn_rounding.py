"""Learned rounding: the blocks, the gradient's graph, what is learned and what is kept."""

import builtins
import sys

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import qcomp
from qcomp.errors import PassError, UsageError
from qcomp.execute import HybridSession
from qcomp.ir.shapes import infer_shapes
from qcomp.passes.quantize.dequantized_weights import dequantized_weight
from qcomp.passes.quantize.learn_rounding_graph import Stream, blocks_of, make_twin
from qcomp.passmanager import Context, Pipeline
from qcomp.quantization import ChosenWeights, LearnedRounding, QuantizationRecord
from qcomp.report.data import Report
from qcomp.report.explain import explain

torch = pytest.importorskip("torch")

LEARN = "learn-rounding{bits=3,steps=40,rows=48,batch=8}"
PREPARE = "canonicalise,fold-constants"


def context_of(data, seed=0):
    return Context(seed=seed, calibration=lambda: iter([data]))


def ran(program, pipeline, data, seed=0):
    context = context_of(data, seed)
    Pipeline.parse(f"{PREPARE},{pipeline}").run(program, context)
    return context


def copy(program):
    return type(program)(program.model.clone(), program.circuits, program.source)


def decibels(wanted, got):
    return 10 * np.log10((wanted**2).sum() / ((wanted - got) ** 2).sum())


@pytest.fixture
def images(rng):
    return {"x": rng.normal(0, 1, (64, 3, 12, 12)).astype(np.float32)}


@pytest.fixture
def block(build, rng):
    """The halves of a post-norm transformer block, twice."""
    body, weights = "", {}
    x = "x"
    for i in range(2):
        body += f"""
            q{i} = MatMul({x}, wq{i})
            k{i} = MatMul({x}, wk{i})
            t{i} = Transpose<perm=[0, 2, 1]>(k{i})
            s{i} = MatMul(q{i}, t{i})
            m{i} = Add(s{i}, mask)
            p{i} = Softmax<axis=-1>(m{i})
            a{i} = MatMul(p{i}, {x})
            o{i} = MatMul(a{i}, wo{i})
            r{i} = Add(o{i}, {x})
            n{i} = LayerNormalization(r{i}, gamma, beta)
            f{i} = MatMul(n{i}, wf{i})
            b{i} = Add(f{i}, bf{i})
            g{i} = Gelu(b{i})
            h{i} = MatMul(g{i}, wh{i})
            e{i} = Add(h{i}, n{i})
            l{i} = LayerNormalization(e{i}, gamma, beta)"""
        for name, shape in (("q", (16, 16)), ("k", (16, 16)), ("o", (16, 16)), ("f", (16, 32))):
            weights[f"w{name}{i}"] = rng.normal(0, 0.15, shape).astype(np.float32)
        weights[f"wh{i}"] = rng.normal(0, 0.3, (32, 16)).astype(np.float32)
        weights[f"bf{i}"] = rng.normal(0, 0.3, 32).astype(np.float32)
        x = f"l{i}"
    weights |= {"gamma": np.ones(16, np.float32), "beta": np.zeros(16, np.float32)}
    return build(
        "g (float[n, 6, 16] x, float[n, 1, 6] mask) => (float[n, 6, 16] l1) {" + body + "}", weights
    )


@pytest.fixture
def sequences(rng):
    mask = np.where(rng.random((256, 1, 6)) < 0.2, -1e4, 0.0)
    x = rng.normal(0, 1, (256, 6, 16))
    return {"x": x.astype(np.float32), "mask": mask.astype(np.float32)}


def test_blocks_end_where_one_value_is_left(cnn, block, images, sequences):
    for program, data, expected in (
        (cnn, images, [["w1"], ["w2", "w3"], ["w4"], ["w5"]]),
        (
            block,
            sequences,
            [
                ["wq0", "wk0", "wo0"],
                ["wf0", "wh0"],
                ["wq1", "wk1", "wo1"],
                ["wf1", "wh1"],
            ],
        ),
    ):
        context = ran(program, "calibrate", data)
        twin = make_twin(program, context, "static", 8)
        units = blocks_of(program.model.graph, twin.layers)
        assert [[layer.weight for layer in unit.layers] for unit in units] == expected
        pairs = blocks_of(program.model.graph, twin.layers, span=2)
        assert len(pairs[0].layers) == sum(len(e) for e in expected[:2])


@pytest.mark.parametrize("granularity", ["layer", "block"])
def test_integer_layers_of_a_cnn_come_nearer_to_float(cnn, images, run, granularity):
    wanted = run(cnn, images)["y"]
    options = f"granularity={granularity},bits=3,steps=40,rows=48,batch=8"
    found = []
    for steps in ("steps=0", options):
        program = copy(cnn)
        text = options.replace("steps=40", steps) if steps == "steps=0" else options
        context = ran(program, f"calibrate,learn-rounding{{{text}}},quantize-static", images)
        found.append(decibels(wanted, run(program, images)["y"]))
    assert found[1] > found[0] + 2.0
    record = context.need(QuantizationRecord, "quantize-static")
    layers = [layer for layer in record.layers if layer.weight]
    assert {layer.weight_type for layer in layers} == {"s3"}
    methods = [layer.method for layer in layers]
    assert sum(f"learned rounding by {granularity}" in method for method in methods) >= 3
    account = context.need(LearnedRounding, "learn-rounding")
    assert all(gain >= 0.0 for _, gain in account.layers.values())


def test_blocks_of_a_transformer_come_nearer_to_float_with_weights_in_groups(block, sequences, run):
    wanted = run(block, sequences)["l1"]
    found = []
    for steps in (0, 60):
        program = copy(block)
        learn = f"learn-rounding{{bits=3,group=16,steps={steps},batch=32}}"
        context = ran(program, f"{learn},quantize-weights{{accuracy_level=0}}", sequences)
        found.append(decibels(wanted, run(program, sequences)["l1"]))
    assert found[1] > found[0] + 1.0
    record = context.need(QuantizationRecord, "quantize-weights")
    assert {layer.weight_type for layer in record.layers} == {"s3/16"}
    chosen = context.need(ChosenWeights, "learn-rounding").weights
    for layer in record.layers:
        back, rows_out = dequantized_weight(program.model.graph.initializers[layer.quantized])
        real = chosen[layer.weight].real()
        assert np.allclose(back.T if rows_out else back, real, rtol=1e-3)  # half a scale's bits


def test_the_same_seed_gives_the_same_integers(cnn, images):
    found = []
    for seed in (0, 0, 1):
        learn = "learn-rounding{bits=3,steps=10,rows=48,batch=8}"
        context = ran(copy(cnn), f"calibrate,{learn}", images, seed)
        weights = context.need(ChosenWeights, "learn-rounding").weights
        found.append({name: (w.levels.tobytes(), w.scale.tobytes()) for name, w in weights.items()})
    assert found[0] == found[1]
    assert found[0] != found[2]


@pytest.mark.parametrize(
    "options",
    [
        "freedom=neighbours,scales=false",
        "loss=cosine,granularity=layer",
        "optimizer=adamw,group=-1",
        "optimizer=sgd,rate=0.5",
    ],
)
def test_no_block_ends_worse_than_rounded_to_nearest(cnn, images, options):
    learn = f"learn-rounding{{bits=4,steps=10,rows=48,batch=8,{options}}}"
    context = ran(cnn, f"calibrate,{learn}", images)
    gains = context.need(LearnedRounding, "learn-rounding").layers
    assert set(gains) == {"w1", "w2", "w3", "w4", "w5"}
    assert all(gain >= 0.0 for _, gain in gains.values())


def test_integers_that_learning_makes_worse_are_not_kept_and_that_is_said(cnn, images):
    context = ran(cnn, "calibrate,learn-rounding{steps=3,rows=48,batch=8,rate=50.0,bits=8}", images)
    kept = [
        learned for learned, _ in context.need(LearnedRounding, "learn-rounding").layers.values()
    ]
    assert not any(kept)
    assert any("0 of 5 weights have learned integers" in text for text in context.warnings)
    methods = {w.method for w in context.need(ChosenWeights, "learn-rounding").weights.values()}
    assert not any("learned" in method for method in methods)


def test_a_block_with_an_operator_without_gradient_is_named_and_learned_by_layers(build, rng):
    program = build(
        """
        g (float[n, 8] x) => (float[n, 8] y) {
            a = MatMul(x, w1)
            s = Celu(a)
            b = MatMul(s, w2)
            y = Add(b, x)
        }""",
        {f"w{i}": rng.normal(0, 0.3, (8, 8)).astype(np.float32) for i in (1, 2)},
    )
    data = {"x": rng.normal(0, 1, (40, 8)).astype(np.float32)}
    context = ran(program, "learn-rounding{bits=3,steps=20,rows=24,batch=8,span=2}", data)
    account = context.need(LearnedRounding, "learn-rounding")
    assert ["Celu"] in account.refused.values()
    assert set(account.layers) == {"w1", "w2"}
    assert any("Celu" in text and "layer by layer" in text for text in context.warnings)


def test_rules_of_operators_are_kept(mlp, rng):
    data = {"x": rng.normal(0, 1, (64, 64)).astype(np.float32)}
    names = [node.name or node.outputs[0].name for node in mlp.model.graph]
    first, last = names[0], names[-1]
    rules = f'select-nodes{{exclude=["{last}"],override=["{first}{{bits=8}}"]}}'
    context = ran(mlp, f"{rules},calibrate,{LEARN}", data)
    weights = context.need(ChosenWeights, "learn-rounding").weights
    assert {name: weight.bits for name, weight in weights.items()} == {"w1": 8}


def test_only_values_between_blocks_are_held(block, sequences):
    context = ran(block, "calibrate", sequences)
    infer_shapes(block)
    stream = Stream(block, [sequences], ["l1"])
    for name in ("n0", "l0", "n1"):
        stream.run(stream.part(stream.missing([stream.value(name)])))
        assert set(stream.chunks[0]) <= {"mask", name}
    assert context.calibration is not None


OPERATORS = {
    "Conv<pads=[1,0,2,1], strides=[2,1], group=2>(x, w)": {"w": (8, 2, 3, 3)},
    'Conv<auto_pad="SAME_LOWER", strides=[2,2]>(x, w, b)': {"w": (6, 4, 3, 3), "b": (6,)},
    "MaxPool<kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]>(x)": {},
    "AveragePool<kernel_shape=[3,3], pads=[1,1,0,0]>(x)": {},
    "AveragePool<kernel_shape=[2,2], pads=[1,1,1,1], count_include_pad=1>(x)": {},
    "GlobalAveragePool(x)": {},
    "LeakyRelu<alpha=0.2>(x)": {},
    'Gelu<approximate="tanh">(x)': {},
    "Softmax<axis=1>(x)": {},
    "HardSwish(x)": {},
    "Elu(x)": {},
    "LayerNormalization<axis=-2>(x, w, b)": {"w": (6, 6), "b": (6, 6)},
    "BatchNormalization(x, w, b, c, d)": {"w": (4,), "b": (4,), "c": (4,), "d": (4,)},
    "Pow(x, e)": {"e": 2.0},
    "ReduceMean<keepdims=0>(x, i)": {"i": [2, 3]},
    "ReduceSum<keepdims=1>(x, i)": {"i": [1]},
    "Transpose<perm=[0,2,3,1]>(x)": {},
    "Reshape(x, i)": {"i": [0, 2, -1]},
    "Flatten<axis=2>(x)": {},
    "Unsqueeze(x, i)": {"i": [1, -1]},
    "Slice(x, s, e, i, t)": {"s": [5, 0], "e": [0, 3], "i": [2, 3], "t": [-2, 1]},
    "Concat<axis=1>(x, x)": {},
    "Expand(h, i)": {"h": (1, 4, 6, 6), "i": [3, 1, 6, 6]},
    "Gather<axis=2>(x, i)": {"i": [[0, -1], [2, 3]]},
    'Pad<mode="reflect">(x, i)': {"i": [0, 0, 1, 2, 0, 0, 0, 1]},
    "Pad(x, i, e)": {"i": [0, 0, 1, 2, 0, 1, 0, 0], "e": 1.5},
    "Trilu<upper=0>(x)": {},
    "Clip(x, l, u)": {"l": -0.5, "u": 0.7},
    "Div(x, e)": {"e": 3.0},
    "Erf(x)": {},
}


@pytest.mark.parametrize("call", OPERATORS)
def test_an_operator_is_the_same_in_pytorch(build, rng, call):
    from qcomp.passes.quantize.learn_rounding_torch import TorchBlock, unknown_operators

    weights = {}
    for name, content in OPERATORS[call].items():
        if isinstance(content, tuple):
            weights[name] = rng.uniform(0.2, 1.0, content).astype(np.float32)
        else:
            kind = np.float32 if isinstance(content, float) else np.int64
            weights[name] = np.array(content, kind)
    program = build(f"g (float[n, 4, 6, 6] x) => (float y) {{ y = {call} }}", weights)
    program.model.graph.outputs[0].shape = None
    x = rng.normal(0, 1, (3, 4, 6, 6)).astype(np.float32)
    nodes = list(program.model.graph)
    assert unknown_operators(nodes) == []
    values = {"x": torch.from_numpy(x).requires_grad_(True)}
    got = TorchBlock(nodes, ["x"]).run(values)["y"]
    wanted = HybridSession(program).run({"x": x})["y"]
    assert got.shape == wanted.shape
    assert np.allclose(got.detach().numpy(), wanted, atol=2e-5)
    if "(x" in call:
        got.sum().backward()
        assert torch.isfinite(values["x"].grad).all()


def test_without_pytorch_the_pass_says_how_to_get_it(mlp, rng, monkeypatch):
    original = builtins.__import__

    def refuse(name, *rest, **more):
        if name == "torch" or name.startswith("torch."):
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
        return original(name, *rest, **more)

    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(builtins, "__import__", refuse)
    data = {"x": rng.normal(0, 1, (64, 64)).astype(np.float32)}
    with pytest.raises(UsageError, match="not installed") as info:
        ran(mlp, LEARN, data)
    assert "pip install 'qcomp[torch]'" in str(info.value.hint)


@pytest.mark.parametrize(
    "options",
    [
        "bits=1",
        "bits=9",
        "group=-2",
        "steps=-1",
        "rows=0",
        "span=0",
        "loss=l7",
        "freedom=all",
        "optimizer=lion",
        "granularity=net",
        "rate=0.0",
        "penalty=-1.0",
    ],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(UsageError):
        Pipeline.parse(f"learn-rounding{{{options}}}")


def test_what_is_missing_is_said(mlp, rng):
    with pytest.raises(PassError, match="no calibration data"):
        Pipeline.parse("canonicalise,learn-rounding").run(mlp, Context())
    data = {"x": rng.normal(0, 1, (64, 64)).astype(np.float32)}
    for options in ("group=32", "symmetric=false"):
        with pytest.raises(PassError, match="integer kernels") as info:
            ran(copy(mlp), f"calibrate,learn-rounding{{{options}}}", data)
        assert "quantize-weights" in str(info.value.hint)
    data["x"][3, 3] = np.nan
    with pytest.raises(UsageError, match="nan"):
        ran(mlp, LEARN, data)


def test_explain_names_the_method_of_a_compiled_artifact(mlp, rng, tmp_path):
    path = tmp_path / "mlp.onnx"
    onnx.save(ir.to_proto(mlp.model), path)
    # On white inputs nothing is better than rounding to nearest: these lie in eight directions.
    x = rng.normal(0, 1, (512, 8)) @ rng.normal(0, 0.3, (8, 64))
    data = {"x": x.astype(np.float32)}
    learn = "learn-rounding{bits=3,steps=60,rows=384}"
    artifact = qcomp.compile(
        path,
        target="cpu-int8",
        calibration=data,
        out=tmp_path / "out",
        pipeline=f"{PREPARE},calibrate,{learn},quantize-static,quantization-error",
    )
    report = Report.from_json((artifact.path / "report.json").read_text())
    lines = {line.name: line for line in explain(report).tensors}
    for name in ("w1", "w2"):
        assert lines[name].type == "s3"
        assert "learned rounding by block" in lines[name].method
