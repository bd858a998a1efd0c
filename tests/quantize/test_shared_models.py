"""Real models with their own data: digits MLP and ResNet-20, in ONNX Runtime, against float."""

import json

import numpy as np
import pytest

import qcomp
from qcomp.backends.onnx_int import OnnxIntBackend
from qcomp.execute import Session
from qcomp.passes.quantize.integer_simulator import IntegerSimulator
from qcomp.passmanager import Context, Pipeline
from qcomp.quantization import FusionReport, sqnr
from qcomp.target import get_target


@pytest.fixture
def model(shared):
    """Path, calibration inputs, evaluation inputs and labels of a model by its name."""

    def load(name):
        folder = shared / "bench" / "models"
        data = np.load(folder / f"{name}.npz")
        about = json.loads((folder / f"{name}.json").read_text())

        def prepare(x):
            if name == "digits_mlp":
                return x.astype(np.float32)
            x = (x / 255 - np.array(about["mean"])) / np.array(about["std"])
            return x.transpose(0, 3, 1, 2).astype(np.float32)

        calib, evaluate = prepare(data["calib_x"][:128]), prepare(data["eval_x"][:500])
        return folder / f"{name}.onnx", calib, evaluate, data["eval_y"][:500]

    return load


W4A8 = (
    "canonicalise,fold-constants,canonicalise,fuse-batch-norm,calibrate{method=percentile},"
    "gptq{group=0,symmetric=true,scheme=static},quantize-static{weight-bits=4},correct-bias"
)


@pytest.mark.parametrize(
    ("name", "pipeline", "decibels", "drop", "size", "kernels"),
    [
        ("digits_mlp", "cpu-int8", 45, 0.005, 0.345, {"QGemm": 3}),
        ("digits_mlp", "cpu-dynamic-int8", 45, 0.005, 0.34, {"DynamicQuantizeMatMul": 3}),
        ("digits_mlp", "cpu-int4", 29.0, 0.01, 0.215, {"MatMulNBits": 3}),
        (
            "resnet20_cifar",
            "cpu-int8",
            28,
            0.01,
            0.3,
            {"QLinearConv": 19, "QLinearAdd": 9, "QGemm": 1},
        ),
        ("resnet20_cifar", W4A8, 12.5, 0.02, 0.18, {"QLinearConv": 19, "QGemm": 1}),
    ],
)
def test_a_real_model_keeps_its_accuracy_and_runs_as_integers(
    model, tmp_path, name, pipeline, decibels, drop, size, kernels
):
    path, calib, images, labels = model(name)
    context = Context(calibration=lambda: iter([{"input": calib}]))
    program = qcomp.read(path)
    target = get_target("cpu-int8" if pipeline == W4A8 else pipeline)
    text = pipeline if pipeline == W4A8 else target.pipeline()
    Pipeline.parse(text).run(program, context)
    out = tmp_path / "out.onnx"
    OnnxIntBackend().write(program, out, target, context)
    before = Session(path).run({"input": images})["logits"]
    after = Session(out).run({"input": images})["logits"]
    accuracy = [(logits.argmax(1) == labels).mean() for logits in (before, after)]
    assert sqnr(before, after) > decibels
    assert accuracy[0] - accuracy[1] <= drop
    assert out.stat().st_size <= size * path.stat().st_size
    report = context.need(FusionReport, "onnx_int")
    assert report.unfused == ()
    assert {kind: report.kernels[kind] for kind in kernels} == kernels


def test_the_simulator_equals_onnx_runtime_on_a_whole_resnet(model):
    from qcomp.execute import HybridSession

    path, calib, images, _ = model("resnet20_cifar")
    context = Context(calibration=lambda: iter([{"input": calib}]))
    program = qcomp.read(path)
    Pipeline.parse(get_target("cpu-int8").pipeline()).run(program, context)
    names = tuple(n.outputs[0].name for n in program.model.graph if n.op_type == "QuantizeLinear")
    feeds = {"input": images[:8]}
    ours = IntegerSimulator(program.model).run(feeds, watch=names)
    theirs = HybridSession(program, taps=names).run(feeds)
    for name in names:
        difference = ours[name].astype(int) - theirs[name].astype(int)
        assert np.abs(difference).max() <= 1, name
    assert (ours["logits"].argmax(1) == theirs["logits"].argmax(1)).all()
