"""Calibration data that the compiler makes up where none was given."""

import json

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import qcomp
from qcomp.errors import PassError, UsageError
from qcomp.execute import Session
from qcomp.passes.calibrate.distill import remembered_moments
from qcomp.passes.calibrate.made_images import SPREAD, made_images, made_series
from qcomp.passes.calibrate.made_inputs import made_inputs
from qcomp.passmanager import Context, Pipeline
from qcomp.quantization import GeneratedData


def generated(program, options="", seed=0):
    """What generate-data makes for a program, and the context."""
    context = Context(seed=seed)
    Pipeline.parse(f"generate-data{options}").run(program, context)
    parts = list(context.calibration())
    return {n: np.concatenate([p[n] for p in parts]) for n in parts[0]}, context


@pytest.fixture
def encoder(build, rng):
    """Ids, mask and segments of BERT's form, with its vocabulary's size."""
    return build(
        """
        g (int64[n, t] ids, int64[n, t] mask, int64[n, t] kinds) => (float[n, t, 4] y) {
            words = Gather(table, ids)
            segments = Gather(kind, kinds)
            shown = Cast<to=1>(mask)
            last = Unsqueeze(shown, minus)
            sum = Add(words, segments)
            masked = Mul(sum, last)
            y = MatMul(masked, w)
        }""",
        {
            "table": rng.normal(size=(30522, 4)).astype(np.float32),
            "kind": rng.normal(size=(2, 4)).astype(np.float32),
            "minus": np.array([-1], np.int64),
            "w": rng.normal(size=(4, 4)).astype(np.float32),
        },
    )


@pytest.fixture
def speaker(build, rng):
    """A causal model whose next token is the last one plus one, almost surely."""
    table = np.eye(16, dtype=np.float32)
    return build(
        """
        g (int64[n, 12] ids) => (float[n, 12, 16] y) {
            words = Gather(table, ids)
            y = MatMul(words, w)
        }""",
        {"table": table, "w": 50.0 * np.roll(table, 1, axis=1)},
    )


@pytest.fixture
def normalized(build, rng):
    """Two convolutions with BatchNormalizations that have seen data of mean 40, deviation 8."""

    def statistics(name, mean, var):
        n = len(mean)
        return {
            f"g{name}": np.ones(n, np.float32),
            f"b{name}": np.zeros(n, np.float32),
            f"m{name}": np.asarray(mean, np.float32),
            f"v{name}": np.asarray(var, np.float32),
        }

    w1 = rng.normal(0, 0.3, (6, 2, 3, 3)).astype(np.float32)
    w2 = rng.normal(0, 0.2, (5, 6, 3, 3)).astype(np.float32)
    x = torch_images(rng)
    first = Session(conv_model(w1)).run({"x": x})["y"]
    mean, var = first.mean((0, 2, 3)), first.var((0, 2, 3))
    relu = np.maximum((first - mean[:, None, None]) / np.sqrt(var + 1e-5)[:, None, None], 0)
    second = Session(conv_model(w2)).run({"x": relu.astype(np.float32)})["y"]
    return build(
        """
        g (float[n, 2, 10, 10] x) => (float[n, 3] y) {
            c1 = Conv(x, w1)
            n1 = BatchNormalization(c1, g1, b1, m1, v1)
            r1 = Relu(n1)
            c2 = Conv(r1, w2)
            n2 = BatchNormalization(c2, g2, b2, m2, v2)
            r2 = Relu(n2)
            p = GlobalAveragePool(r2)
            f = Flatten(p)
            y = Gemm(f, w3)
        }""",
        {
            "w1": w1,
            "w2": w2,
            "w3": rng.normal(size=(5, 3)).astype(np.float32),
            **statistics("1", mean, var),
            **statistics("2", second.mean((0, 2, 3)), second.var((0, 2, 3))),
        },
    )


def torch_images(rng):
    return (40.0 + 8.0 * made_images(64, 2, 10, 10, rng)).astype(np.float32)


def conv_model(w):
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Conv", ["x", "w"], ["y"])],
        "g",
        [value("x", 1, ["n", w.shape[1], "h", "w0"])],
        [value("y", 1, ["n", w.shape[0], "a", "b"])],
        [onnx.numpy_helper.from_array(w, "w")],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)])


def test_each_input_is_known_by_what_the_graph_does_with_it(encoder):
    roles = {made.name: (made.role, made.bound) for made in made_inputs(encoder.model)}
    assert roles == {"ids": ("tokens", 30522), "mask": ("mask", 0), "kinds": ("segments", 2)}


def test_rows_of_an_encoder_are_framed_and_padded_behind_their_mask(encoder):
    data, context = generated(encoder)
    ids, mask = data["ids"], data["mask"]
    lengths = mask.sum(1)
    assert ids.shape == mask.shape == (128, 64)
    assert ids.min() >= 0
    assert ids.max() < 30522
    assert (ids[:, 0] == 101).all()
    assert (ids[np.arange(128), lengths - 1] == 102).all()
    assert (ids[mask == 0] == 0).all()
    assert lengths.min() <= 8
    assert lengths.max() >= 48
    assert not data["kinds"].any()
    assert "framed by (101, 102)" in context.get(GeneratedData).inputs["ids"]
    assert any("128 generated samples" in warning for warning in context.warnings)


def test_a_language_model_draws_its_own_text(speaker):
    data, context = generated(speaker, "{samples=8,rounds=12}")
    steps = np.diff(data["ids"], axis=1) % 16
    assert (steps == 1).all()
    assert (
        "drawn by the model itself, position by position"
        in (context.get(GeneratedData).inputs["ids"])
    )
    few = np.diff(generated(speaker, "{samples=8,rounds=3}")[0]["ids"], axis=1) % 16
    assert (few[:, :3] == 1).all(), "after three rounds three tokens are drawn right"
    assert not (few == 1).all()


def test_images_are_varied_and_stay_in_their_range(rng):
    x = made_images(32, 3, 96, 80, rng)
    assert x.shape == (32, 3, 96, 80)
    assert np.abs(x).max() <= SPREAD
    assert 0.5 < x.std() < 1.5
    assert np.ptp(x.mean((1, 2, 3))) > 0.5
    steps = np.diff(x, axis=-1)
    assert np.median(np.abs(steps)) < 0.1 * x.std(), "neighbours are alike"
    assert np.abs(steps).max() > x.std(), "there are edges"
    colours = np.corrcoef(x.transpose(1, 0, 2, 3).reshape(3, -1))
    assert colours.min() > 0.5
    assert made_series(4, (20, 3), rng).shape == (4, 20, 3)


def test_the_declared_range_is_kept_to(mlp, cnn):
    for program in (mlp, cnn):
        x = generated(program, "{low=0,high=1,samples=64}")[0]["x"]
        assert x.min() >= 0.0
        assert x.max() <= 1.0
        assert np.ptp(x) > 0.7


def test_every_class_has_images_that_it_is_sure_of(cnn):
    data, context = generated(cnn, "{samples=40}")
    assert "each class is surest" in context.get(GeneratedData).inputs["x"]
    assert data["x"].shape == (40, 3, 12, 12)
    x = made_images(400, 3, 12, 12, np.random.default_rng(5))
    run = Session(cnn.model).run
    chosen, any_images = run({"x": data["x"]})["y"], run({"x": x})["y"]
    assert (chosen.max(0) >= np.quantile(any_images, 0.98, axis=0)).all()


def test_distilled_inputs_have_the_moments_that_normalizations_remember(normalized):
    pytest.importorskip("torch")
    before = remembered_moments(normalized.model, Context())
    data, context = generated(normalized, "{samples=64}")
    assert (
        "distilled to the statistics of 2 normalizations"
        in (context.get(GeneratedData).inputs["x"])
    )
    assert data["x"].mean() == pytest.approx(40.0, abs=4.0)
    assert data["x"].std() == pytest.approx(8.0, rel=0.5)
    from qcomp.execute import HybridSession

    seen = HybridSession(normalized, taps=list(before)).run({"x": data["x"]}, list(before))
    for name, (mean, deviation) in before.items():
        m, s = seen[name].mean((0, 2, 3)), seen[name].std((0, 2, 3))
        assert np.abs((m - mean) / deviation).max() < 0.2
        assert np.abs(s / deviation - 1.0).max() < 0.2


def test_folded_normalizations_are_remembered(normalized):
    pytest.importorskip("torch")
    context = Context()
    Pipeline.parse("canonicalise,fuse-batch-norm,generate-data{method=distill,samples=32}").run(
        normalized, context
    )
    assert "2 normalizations" in context.get(GeneratedData).inputs["x"]
    x = np.concatenate([part["x"] for part in context.calibration()])
    assert x.mean() == pytest.approx(40.0, abs=6.0)


def test_without_normalization_or_pytorch_the_reason_is_said(cnn, normalized, monkeypatch):
    with pytest.raises(UsageError, match=r"(?s)no BatchNormalization.*method=sample"):
        generated(cnn, "{method=distill}")
    import qcomp.passes.torch_graph as torch_graph

    monkeypatch.setattr(torch_graph, "has_torch", lambda: False)
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(UsageError, match=r"(?s)needs PyTorch.*pip install"):
        generated(normalized, "{method=distill}")
    _, context = generated(normalized, "{samples=16}")
    assert "dead leaves" in context.get(GeneratedData).inputs["x"]
    assert any("PyTorch is not installed" in warning for warning in context.warnings)


def test_the_same_seed_makes_the_same_data_and_given_data_stays(cnn):
    a, b, c = (generated(cnn, "{samples=16}", seed)[0]["x"] for seed in (3, 3, 4))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
    given = [{"x": np.zeros((2, 3, 12, 12), np.float32)}]
    context = Context(calibration=lambda: iter(given))
    Pipeline.parse("generate-data").run(cnn, context)
    assert next(context.calibration()) is given[0]
    assert context.get(GeneratedData) is None


def test_a_fixed_batch_gets_rows_that_fill_it(build):
    program = build("g (float[3, 4] x) => (float[3, 4] y) { y = Relu(x) }", {})
    context = Context()
    Pipeline.parse("generate-data{samples=9}").run(program, context)
    assert [part["x"].shape for part in context.calibration()] == [(3, 4)] * 3


def test_a_model_without_all_gradients_gets_made_images(normalized):
    pytest.importorskip("torch")
    graph = normalized.model.graph
    (second,) = [node for node in graph if node.op_type == "Conv" and node.inputs[1].name == "w2"]
    pool = ir.node(
        "MaxPool", [second.inputs[0]], {"kernel_shape": [1, 1], "ceil_mode": 1}, name="pool"
    )
    pool.outputs[0].name = "pooled"
    graph.insert_before(second, pool)
    second.replace_input_with(0, pool.outputs[0])
    _, context = generated(normalized, "{samples=16}")
    assert "dead leaves" in context.get(GeneratedData).inputs["x"]
    assert any("not distilled" in w and "ceil_mode" in w for w in context.warnings)
    with pytest.raises(PassError, match="ceil_mode"):
        generated(normalized, "{samples=16,method=distill}")


@pytest.mark.parametrize(
    "options", ["method=magic", "samples=0", "steps=0", "rounds=0", "low=1,high=1"]
)
def test_options_out_of_range_are_refused(options, cnn):
    with pytest.raises(UsageError):
        generated(cnn, f"{{{options}}}")


def test_inputs_that_nothing_can_be_made_up_for_are_named(build):
    text = build("g (string[n] x) => (string[n] y) { y = Identity(x) }", {})
    with pytest.raises(UsageError, match="'x'"):
        generated(text)
    narrow = build(
        "g (float[n, k] x) => (float[n, 5] y) { y = MatMul(x, w) }",
        {"w": np.zeros((3, 5), np.float32)},
    )
    with pytest.raises(PassError, match=r"(?s)made up for it.*--calib data.npz"):
        generated(narrow)


def test_compile_takes_the_word_generated_in_place_of_data(cnn, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ir.save(cnn.model, "model.onnx")
    artifact = qcomp.compile("model.onnx", target="cpu-int8", calibration="generated", out="out")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert any("generated samples" in warning for warning in report["warnings"])
    assert report["passes"][0]["name"].startswith("generate-data")
    (compared,) = [c for c in report["checks"] if "against the float source" in c["what"]]
    assert "generated samples" in compared["how"]
    x = made_images(16, 3, 12, 12, np.random.default_rng(1))
    y, q = Session("model.onnx").run({"x": x})["y"], artifact.run({"x": x})["y"]
    assert 10 * np.log10((y**2).sum() / ((y - q) ** 2).sum()) > 25.0
    by_text = qcomp.compile(
        "model.onnx",
        target="cpu-int8",
        pipeline="generate-data{samples=8},calibrate,quantize-static",
        out="text",
    )
    assert by_text.run({"x": x})["y"].shape == y.shape
    with pytest.raises(UsageError, match="--calib generated"):
        qcomp.compile("model.onnx", target="cpu-int8", out="none")
    with pytest.raises(UsageError, match="no classical graph"):
        qcomp.compile(qcomp.Circuit(1), target="portable", calibration="generated", out="none")
