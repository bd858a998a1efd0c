"""Weights of few bits by other tools, in the interpreter that has them; see ``quantize_peers.py``.

    python benchmarks/low_bit_peers.py TOOL CONFIG IN.onnx CALIBRATION.npz OUT.onnx

CONFIG is a method, a number of bits and a group, as ``rtn-4-32``; zero points are free.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import quantize_peers as peers
from quantize_peers import Seconds, begin

PEERS = {
    "ort": ("rtn-4-32", "hqq-4-32", "gptq-4-32", "rtn-4-128", "hqq-4-128", "rtn-2-16", "hqq-2-16"),
    "nncf": ("rtn-4-32", "awq+scales-4-32", "rtn-4-128", "awq+scales-4-128"),
    "onc": ("rtn-4-32", "gptq-4-32", "rtn-4-128", "rtn-3-32"),
    "quark": ("rtn-4-32", "hqq-4-32", "rtn-4-128", "rtn-2-16"),
}
"""Tool -> what of it runs on ONNX models: method, bits, group."""


def kind(config: str) -> str:
    """The class that a configuration is compared in, as ``W4`` or ``W4 128``."""
    _, bits, group = _parts(config)
    return f"W{bits} {group}" if group == 128 else f"W{bits}"


def _parts(config: str) -> tuple[str, int, int]:
    method, bits, group = config.rsplit("-", 2)
    return method, int(bits), int(group)


def _reader(data: Path, base: type) -> Any:
    """Calibration batches that can be copied: quantizers copy what they are configured with."""

    class Reader(base):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = list(peers._batches(data))

        def get_next(self) -> dict[str, Any] | None:
            return self.left.pop(0) if self.left else None

        def rewind(self) -> None:
            self.left = list(peers._batches(data))

    return Reader()


def _nbits(config: str, model: Path, data: Path, module: Any, reader: type) -> tuple[Any, float]:
    """Run a MatMulNBitsQuantizer, ONNX Runtime's or Quark's form of it."""
    import onnx

    method, bits, group = _parts(config)
    start = begin()
    if method == "rtn":
        chosen = module.DefaultWeightOnlyQuantConfig(
            block_size=group, is_symmetric=False, bits=bits
        )
    elif method == "hqq":
        chosen = module.HQQWeightOnlyQuantConfig(block_size=group, bits=bits)
    else:
        given = _reader(data, reader)
        chosen = module.GPTQWeightOnlyQuantConfig(calibration_data_reader=given, block_size=group)
    quantizer = module.MatMulNBitsQuantizer(
        onnx.load(model),
        block_size=group,
        is_symmetric=False,
        bits=bits,
        algo_config=chosen,
    )
    (quantizer.process if hasattr(quantizer, "process") else quantizer.quantize_model)()
    made = quantizer.model
    return getattr(made, "model", made), start


def ort_tool(config: str, model: Path, data: Path, out: Path) -> Seconds:
    """``rtn``, ``hqq`` or ``gptq`` of onnxruntime.quantization."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, matmul_nbits_quantizer

    made, start = _nbits(config, model, data, matmul_nbits_quantizer, CalibrationDataReader)
    onnx.save(made, out)
    return {"cpu_s": time.process_time() - start}


def quark_tool(config: str, model: Path, data: Path, out: Path) -> Seconds:
    """The same of AMD Quark."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader
    from quark.onnx.quantizers import matmul_nbits_quantizer

    made, start = _nbits(config, model, data, matmul_nbits_quantizer, CalibrationDataReader)
    onnx.save(made, out)
    return {"cpu_s": time.process_time() - start}


def nncf_tool(config: str, model: Path, data: Path, out: Path) -> Seconds:
    """``rtn``, or ``awq+scales``: AWQ and scale estimation; 4 bits."""
    import nncf
    import onnx
    from nncf.onnx.graph import onnx_helper  # noqa: F401  what compress_weights would import

    method, bits, group = _parts(config)
    if bits != 4:
        raise ValueError(f"nncf has no weights of {bits} bits in ONNX")
    start = begin()
    float_model = onnx.load(model)
    arrays = dict(np.load(data))
    rows = [
        {name: array[i : i + 1] for name, array in arrays.items()}
        for i in range(min(128, len(next(iter(arrays.values())))))
    ]
    more = {"dataset": nncf.Dataset(rows), "awq": True, "scale_estimation": True}
    made = nncf.compress_weights(
        float_model,
        mode=nncf.CompressWeightsMode.INT4_ASYM,
        group_size=group,
        **({} if method == "rtn" else more),
    )
    onnx.save(made, out)
    return {"cpu_s": time.process_time() - start}


def onc_tool(config: str, model: Path, data: Path, out: Path) -> Seconds:
    """``rtn`` or ``gptq`` of onnx-neural-compressor."""
    import onnx
    from onnx_neural_compressor import data_reader
    from onnx_neural_compressor.quantization import matmul_nbits_quantizer as module

    method, bits, group = _parts(config)
    start = begin()
    chosen: Any = module.RTNWeightOnlyQuantConfig()
    if method == "gptq":
        reader = _reader(data, data_reader.CalibrationDataReader)
        chosen = module.GPTQWeightOnlyQuantConfig(reader, block_size=group)
    quantizer = module.MatMulNBitsQuantizer(
        str(model), block_size=group, is_symmetric=False, n_bits=bits, algo_config=chosen
    )
    quantizer.process()
    made = quantizer.model
    onnx.save(getattr(made, "model", made), out)
    return {"cpu_s": time.process_time() - start}


TOOLS = {"ort": ort_tool, "nncf": nncf_tool, "onc": onc_tool, "quark": quark_tool}


if __name__ == "__main__":
    peers.TOOLS.update(TOOLS)
    peers.main()
