"""One quantization by one tool, in the interpreter that has it; nothing of qcomp but for qcomp.

    python benchmarks/quantize_peers.py TOOL CONFIG IN.onnx CALIBRATION.npz OUT.onnx

prints one line of JSON: CPU seconds of the quantization (imports apart), of checks and reports
where the tool has them apart, and the peak of resident memory above what the imports left.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Seconds = dict[str, float]
Tool = Callable[[str, Path, Path, Path], Seconds]
BATCH = 32


def _batches(data: Path) -> Iterator[dict[str, Any]]:
    arrays = dict(np.load(data))
    count = len(next(iter(arrays.values())))
    for start in range(0, count, BATCH):
        yield {name: array[start : start + BATCH] for name, array in arrays.items()}


def _reader(data: Path, base: type) -> Any:
    class Reader(base):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rewind()

        def get_next(self) -> dict[str, Any] | None:
            return next(self._left, None)

        def rewind(self) -> None:
            self._left = _batches(data)

    return Reader()


def qcomp_tool(config: str, model: Path, data: Path, out: Path) -> Seconds:
    """``static``, ``dynamic``, ``data-free``, or a pipeline's text for the target cpu-int8.

    ``data-free=LOW,HIGH`` says what float inputs lie between.
    """
    import numpy.random  # noqa: F401  imports are no work: before the clock starts
    import onnx  # noqa: F401
    import onnx_ir.passes.common  # noqa: F401
    import onnxruntime  # noqa: F401

    import qcomp
    import qcomp.passes.graph.fused_forms
    from qcomp.passmanager import Pipeline
    from qcomp.target import get_target

    known = {
        **dict.fromkeys(("static", "max", "data-free"), "cpu-int8"),
        "dynamic": "cpu-dynamic-int8",
    }
    calibration = {"dynamic": None, "data-free": "generated"}
    config, _, span = config.partition("=") if config.startswith("data-free") else (config, "", "")
    target = get_target(known.get(config, "cpu-int8"))
    effort = "max" if config == "max" else "default"
    Pipeline.parse(target.pipeline(effort) if config in known else config)
    passes: dict[str, float] = {}

    def note(record: Any, _: Any) -> None:
        passes[record.name] = passes.get(record.name, 0.0) + record.seconds

    start = begin()
    with tempfile.TemporaryDirectory() as folder:
        artifact = Path(folder) / "artifact"
        qcomp.compile(
            str(model),
            target=target,
            calibration=calibration[config] if config in calibration else dict(np.load(data)),
            effort=effort,
            pipeline=_declared(target.pipeline(effort), span) if config in known else config,
            observer=note,
            out=artifact,
        )
        total = time.process_time() - start
        graph = next(iter(sorted(artifact.glob("*.onnx"))))
        shutil.copy(graph, out)
    work = sum(s for name, s in passes.items() if not name.startswith("quantization-error"))
    return {"cpu_s": work, "checks_cpu_s": total - work}


def _declared(text: str, span: str) -> str | None:
    """A target's pipeline with the range that inputs are made up in; None where none is said."""
    low, _, high = span.partition(",")
    return f"canonicalise,generate-data{{low={low},high={high}}},{text.strip()}" if span else None


def ort_tool(config: str, model: Path, data: Path, out: Path) -> Seconds:
    """``static`` (u8/s8, per channel), ``static-matmul`` (weights only of MatMul), ``dynamic``."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_dynamic,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    start = begin()
    ready = out.with_suffix(".pre.onnx")
    quant_pre_process(str(model), str(ready), skip_symbolic_shape=True)
    if config == "dynamic":
        quantize_dynamic(str(ready), str(out), per_channel=True, weight_type=QuantType.QInt8)
    else:
        quantize_static(
            str(ready),
            str(out),
            _reader(data, CalibrationDataReader),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            calibrate_method=CalibrationMethod.MinMax,
            op_types_to_quantize=["MatMul", "Gemm"] if config == "static-matmul" else None,
            extra_options={"MatMulConstBOnly": True} if config == "static-matmul" else None,
        )
    ready.unlink()
    return {"cpu_s": time.process_time() - start}


def nncf_tool(config: str, model: Path, data: Path, out: Path) -> Seconds:
    """``ptq`` or, for models with attention, ``ptq-transformer``."""
    import nncf
    import onnx
    from nncf.onnx.graph import onnx_helper  # noqa: F401  what quantize would import
    from nncf.onnx.quantization import quantize_model  # noqa: F401

    start = begin()
    float_model = onnx.load(model)
    rows = [
        {name: array[i : i + 1] for name, array in dict(np.load(data)).items()}
        for i in range(min(300, len(next(iter(np.load(data).values())))))
    ]
    kind = nncf.ModelType.TRANSFORMER if config == "ptq-transformer" else None
    made = nncf.quantize(float_model, nncf.Dataset(rows), model_type=kind)
    onnx.save(made, out)
    return {"cpu_s": time.process_time() - start}


def onc_tool(config: str, model: Path, data: Path, out: Path) -> Seconds:
    """``static`` or ``smooth`` (SmoothQuant) of onnx-neural-compressor."""
    from onnx_neural_compressor import data_reader
    from onnx_neural_compressor.quantization import config as configs
    from onnx_neural_compressor.quantization import quantize

    start = begin()
    reader = _reader(data, data_reader.CalibrationDataReader)
    extra = {"SmoothQuant": True} if config == "smooth" else {}
    chosen = configs.StaticQuantConfig(
        calibration_data_reader=reader, per_channel=True, extra_options=extra
    )
    quantize(str(model), str(out), chosen)
    return {"cpu_s": time.process_time() - start}


def quark_tool(config: str, model: Path, data: Path, out: Path) -> Seconds:
    """AMD Quark's ``u8`` or ``i8`` with power-free scales (its defaults of that name)."""
    from onnxruntime.quantization import CalibrationDataReader
    from quark.onnx import ModelQuantizer
    from quark.onnx.quantization.config.config import Config
    from quark.onnx.quantization.config.custom_config import get_default_config

    start = begin()
    name = {"u8": "U8S8_AAWS", "i8": "S8S8_AAWS"}[config]
    quantizer = ModelQuantizer(Config(global_quant_config=get_default_config(name)))
    quantizer.quantize_model(str(model), str(out), _reader(data, CalibrationDataReader))
    return {"cpu_s": time.process_time() - start}


TOOLS: dict[str, Tool] = {
    "qcomp": qcomp_tool,
    "ort": ort_tool,
    "nncf": nncf_tool,
    "onc": onc_tool,
    "quark": quark_tool,
}
_BEFORE = [0]


def begin() -> float:
    """Return the CPU clock, and remember the memory that the imports have left."""
    _BEFORE[0] = memory("VmRSS")
    return time.process_time()


def memory(what: str) -> int:
    """Bytes of this process that Linux tells: resident now (VmRSS), or at most (VmHWM)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"the kernel does not tell {what}")


def main() -> None:
    tool, config, model, data, out = sys.argv[1:]
    try:
        found = TOOLS[tool](config, Path(model), Path(data), Path(out))
        answer = {"ok": True, **found, "peak": memory("VmHWM") - _BEFORE[0]}
    except Exception as error:  # a peer may fail in any way, and that is an answer
        answer = {"ok": False, "error": f"{type(error).__name__}: {str(error)[:300]}"}
    print("\nANSWER " + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
