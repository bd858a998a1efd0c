"""``--max-drop``: layers by the noise that each adds, and the fewest of them kept in float."""

import json
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest

import qcomp
from qcomp.accuracy_bound import Trial, search
from qcomp.errors import PassError, UsageError
from qcomp.feeds import Score
from qcomp.largest_drop import Drop
from qcomp.passes.analyze.layer_noise import layer_noise
from qcomp.passmanager import Context
from qcomp.quantization import FloatReference, QuantizationError, QuantizationRecord
from qcomp.report.data import Report
from qcomp.target import get_target
from tests.models import mlp, small_cnn

RNG = np.random.default_rng(11)
PLAIN = "canonicalise,fold-constants,fuse-batch-norm,calibrate,quantize-static,quantization-error"


def spoiled(seed=0):
    """An MLP whose middle layer has one weight that takes the range of a whole scale."""
    model = mlp((8, 32, 32, 32, 5), seed)
    for tensor in model.graph.initializer:
        if tensor.name == "w1":
            w = np.array(np.frombuffer(tensor.raw_data, np.float32)).reshape(32, 32)
            w[:, 0] *= 2000.0
            tensor.raw_data = w.tobytes()
        if tensor.name == "b0":  # the channel that meets it is always off behind its Relu
            b = np.array(np.frombuffer(tensor.raw_data, np.float32))
            b[0] = -1000.0
            tensor.raw_data = b.tobytes()
    return model


@pytest.fixture(scope="module")
def data():
    x = RNG.normal(size=(256, 8)).astype(np.float32)
    session = onnxruntime.InferenceSession(
        spoiled().SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return {"x": x}, {"x": x, "y": session.run(None, {"x": x})[0].argmax(1)}


def quantized(model, data, pipeline=PLAIN, target="cpu-int8"):
    program = qcomp.read(model)
    context = Context(target=get_target(target))
    context.calibration = lambda: iter([data])
    from qcomp.passmanager import Pipeline

    Pipeline.parse(pipeline).run(program, context)
    return program, context


@pytest.mark.parametrize(
    ("pipeline", "target"),
    [
        (PLAIN, "cpu-int8"),
        (PLAIN, "openvino-int8"),
        (PLAIN, "vitisai-int8"),
        ("quantize-dynamic,quantization-error", "cpu-dynamic-int8"),
        ("quantize-weights{group=16},quantization-error", "cpu-int4"),
    ],
)
def test_noise_of_single_layers_adds_up_to_that_of_all(pipeline, target):
    data = {"x": RNG.normal(size=(64, 8)).astype(np.float32)}
    program, context = quantized(mlp((8, 32, 32, 5)), data, pipeline, target)
    layers = context.need(QuantizationRecord, "").layers
    reference = context.need(FloatReference, "").program
    noise = layer_noise(reference, program, layers, [data], context)
    weighted = [layer.node for layer in layers if layer.weight]
    assert len(weighted) == 3
    assert all(noise[name] > 0 for name in weighted)
    together = -10 * np.log10(sum(noise.values()))
    (whole,) = context.need(QuantizationError, "").outputs.values()
    assert together == pytest.approx(whole, abs=3.0)


def test_noise_of_a_convolutional_network_adds_up_too_and_leaves_the_programs_alone():
    data = {"x": RNG.normal(size=(32, 3, 8, 8)).astype(np.float32)}
    program, context = quantized(small_cnn(), data)
    reference = context.need(FloatReference, "").program
    layers = context.need(QuantizationRecord, "").layers
    names = [value.name for value in program.model.graph.initializers.values()]
    before = [str(reference.model.graph), str(program.model.graph)]
    noise = layer_noise(reference, program, layers, [data], context)
    assert before == [str(reference.model.graph), str(program.model.graph)]
    tensors = program.model.graph.initializers.values()
    assert [value.const_value.name for value in tensors] == names
    (whole,) = context.need(QuantizationError, "").outputs.values()
    assert -10 * np.log10(sum(noise.values())) == pytest.approx(whole, abs=3.0)


def test_a_layer_behind_a_relu_that_was_left_out_is_still_measured():
    data = {"x": RNG.normal(size=(32, 3, 8, 8)).astype(np.float32)}
    program, context = quantized(small_cnn(), data, PLAIN, "qnn-int8")
    assert "Relu" not in [node.op_type for node in program.model.graph]
    reference = context.need(FloatReference, "").program
    layers = context.need(QuantizationRecord, "").layers
    context.put(QuantizationError((), {}, 0, ""))  # nothing to fall back to
    noise = layer_noise(reference, program, layers, [data], context)
    assert all(noise[layer.node] > 0 for layer in layers if layer.weight)


def test_the_layer_that_is_spoiled_is_the_one_kept_in_float(data, tmp_path):
    calibration, labelled = data
    options = {
        "target": "vitisai-int8",
        "calibration": calibration,
        "labels": labelled,
        "pipeline": PLAIN,
    }
    whole = qcomp.compile(spoiled(), **options)
    found = Report.from_json(json.dumps(whole.report)).accuracy[0]
    assert found.compiled < 0.95
    artifact = qcomp.compile(spoiled(), max_drop="3%", out=tmp_path / "out", **options)
    report = Report.from_json((tmp_path / "out" / "report.json").read_text())
    bound = report.bound
    assert bound is not None
    assert bound.kept[0].layer == "h1"
    assert len(bound.kept) < bound.layers == 4
    assert bound.quantized == pytest.approx(found.compiled)
    assert bound.reached == report.accuracy[0].compiled >= 0.97
    assert bound.bytes_quantized < bound.bytes_reached
    assert bound.time_reached is None  # its kernels are not here
    reasons = {line.layer: line.reason for line in report.quantization.left_in_float}
    assert "drop by at most 3%" in reasons[bound.kept[0].layer]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Largest drop" in page
    assert bound.kept[0].layer in page
    assert (artifact(labelled["x"]).argmax(1) == labelled["y"]).mean() == bound.reached


def test_a_drop_that_is_met_keeps_nothing(data):
    calibration, labelled = data
    artifact = qcomp.compile(
        spoiled(), target="cpu-int8", calibration=calibration, labels=labelled, max_drop="20%"
    )
    bound = Report.from_json(json.dumps(artifact.report)).bound
    assert bound is not None
    assert bound.kept == ()
    assert bound.trials == 1
    assert "all layers quantized" in bound.sentence


def fake(metric, drops):
    """A search whose drop with k layers in float is drops[k]."""
    tried = []

    def trial(kept):
        tried.append(len(kept))
        return Trial(None, None, score=Score(metric, 0.9 - drops[len(kept)], 10, True))

    return trial, trial(()), tried


@pytest.mark.parametrize(
    ("drops", "kept"),
    [
        ([0.1, 0.0, 0, 0, 0], 1),
        ([0.1, 0.1, 0.0, 0, 0], 2),
        ([0.1, 0.1, 0.1, 0.0, 0], 3),
        ([0.1, 0.1, 0.1, 0.1, 0.0], 4),
        ([0.1] * 11 + [0.0] * 6, 11),
    ],
)
def test_the_fewest_layers_that_meet_the_drop_are_found_in_few_trials(drops, kept):
    attempt, first, tried = fake("accuracy", drops)
    order = [str(i) for i in range(len(drops) - 1)]
    source = Score("accuracy", 0.9, 10, True)
    _, names, trials = search(attempt, first, order, Drop.parse("1%"), source)
    assert list(names) == order[:kept]
    assert trials == len(tried) <= 2 + 2 * np.log2(len(drops)) + 2 * np.ceil(np.log2(kept))


@pytest.mark.parametrize(
    ("layers", "needed"),
    [(2, [1]), (5, [1, 4]), (8, [5]), (16, [0, 9]), (16, [2, 3]), (32, [7, 20]), (32, [30])],
)
def test_layers_that_are_not_needed_are_taken_back(layers, needed):
    tried = []

    def attempt(kept):
        tried.append(kept)
        lacking = sum(str(i) not in kept for i in needed)
        return Trial(None, None, score=Score("accuracy", 0.9 - 0.1 * lacking, 10, True))

    order = [str(i) for i in range(layers)]
    source = Score("accuracy", 0.9, 10, True)
    trial, names, trials = search(attempt, attempt(()), order, Drop.parse("1%"), source)
    assert set(names) >= {str(i) for i in needed}
    assert trial.score.value == 0.9
    prefix = max(needed) + 1
    assert len(names) <= max(len(needed), prefix / 4)
    assert trials == len(tried) <= 2 + 2 * np.log2(layers) + 2 * np.ceil(np.log2(prefix))


def test_a_drop_that_cannot_be_met_is_said_with_the_best_there_is():
    attempt, first, _ = fake("accuracy", [0.1, 0.09, 0.08])
    with pytest.raises(PassError, match="cannot be met") as error:
        search(attempt, first, ["a", "b"], Drop.parse("1%"), Score("accuracy", 0.9, 10, True))
    assert "0.08" in str(error.value)
    with pytest.raises(PassError, match="cannot be met"):
        search(attempt, first, [], Drop.parse(0.01), Score("accuracy", 0.9, 10, True))


def test_a_drop_is_a_share_or_a_number_and_goes_the_way_that_is_worse():
    source, more = Score("perplexity", 50.0, 9, False), Score("perplexity", 51.0, 9, False)
    assert Drop.parse("0.5%").allowed(source) == pytest.approx(0.25)
    assert Drop.parse(0.5).allowed(source) == 0.5
    assert Drop.parse("1%").of(source, more) == 1.0
    good, bad = Score("accuracy", 0.9, 9, True), Score("accuracy", 0.8, 9, True)
    assert Drop.parse("1%").of(good, bad) == pytest.approx(0.1)
    mine = SimpleNamespace(value=2.0, higher_is_better=None)
    assert Drop.parse(1).of(mine, SimpleNamespace(value=1.5, higher_is_better=None)) == 0.5
    assert [str(Drop.parse(text)) for text in ("0.5%", "0.005", 2)] == ["0.5%", "0.005", "2"]


@pytest.mark.parametrize("value", ["half", "-1%", "nan", "", "%", True, float("inf")])
def test_what_is_no_drop_is_refused(value):
    with pytest.raises(UsageError, match="is no drop"):
        Drop.parse(value)


def test_a_largest_drop_needs_labels_and_so_does_a_metric(data):
    for options, what in (({"max_drop": "1%"}, "largest drop"), ({"metric": "cosine"}, "metric")):
        with pytest.raises(UsageError, match=f"{what} needs labels"):
            qcomp.compile(spoiled(), target="cpu-int8", calibration=data[0], **options)


def test_the_users_own_metric_steers_the_search(data):
    calibration, labelled = data
    targets = {"x": labelled["x"], "y": np.eye(5, dtype=np.float32)[labelled["y"]]}

    def loss(outputs, labels):
        shifted = outputs - outputs.max(1, keepdims=True)
        return float(-(shifted * labels).sum(1).mean())

    artifact = qcomp.compile(
        spoiled(),
        target="vitisai-int8",
        calibration=calibration,
        labels=targets,
        metric=loss,
        higher_is_better=False,
        max_drop=0.001,
        pipeline=PLAIN,
    )
    report = Report.from_json(json.dumps(artifact.report))
    assert report.bound is not None
    assert report.bound.reached <= report.bound.source + 0.001 < report.bound.quantized
    assert report.bound.kept


def near_float(data, **options):
    """Compile for CPUs; the figure is the squared error against the float outputs."""
    x = data[0]["x"]
    session = onnxruntime.InferenceSession(
        mlp((8, 32, 32, 5)).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    labels = {"x": x, "y": session.run(None, {"x": x})[0]}
    artifact = qcomp.compile(
        mlp((8, 32, 32, 5)),
        target="cpu-int8",
        calibration=data[0],
        labels=labels,
        pipeline=PLAIN,
        **options,
    )
    return Report.from_json(json.dumps(artifact.report))


def test_time_is_part_of_the_cost_where_the_kernels_are_here(data):
    error = near_float(data).accuracy[0].compiled
    bound = near_float(data, max_drop=0.75 * error).bound
    assert bound is not None
    assert 0 < len(bound.kept) < bound.layers
    assert bound.reached <= 0.75 * error < bound.quantized
    assert bound.time_reached is not None
    assert bound.time_quantized is not None
    assert min(bound.time_reached, bound.time_quantized) > 0
    assert "of float's in place of" in bound.sentence


def test_a_drop_that_only_float_meets_is_said(data):
    report = near_float(data, max_drop=0)
    assert report.bound is not None
    assert len(report.bound.kept) == report.bound.layers == 3
    assert report.bound.reached == 0
    assert any("only with all layers in float" in text for text in report.warnings)
