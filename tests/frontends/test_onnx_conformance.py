"""Every node test inside the onnx package that ONNX Runtime passes, it passes after us too."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qcomp.backends.onnx_file import save_program
from qcomp.execute import Session
from qcomp.frontends.onnx_model import OnnxFrontend
from qcomp.passes.graph.canonicalise import Canonicalise
from qcomp.passes.graph.fold_constants import FoldConstants
from qcomp.passmanager import Context

EXPECTED = 1740


@dataclass
class Case:
    name: str
    model: onnx.ModelProto
    runs: list[tuple[dict[str, Any], list[Any]]]
    rtol: float
    atol: float


def load_cases() -> list[Case]:
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tests = load_model_tests(kind="node")
    cases = []
    for test in tests:
        if any(is_odd(value) for run in test.data_sets for part in run for value in part):
            cases += [embedded(test, inputs, outputs) for inputs, outputs in test.data_sets]
        else:
            names = [value.name for value in test.model.graph.input]
            runs = [
                (dict(zip(names, inputs, strict=True)), list(outputs))
                for inputs, outputs in test.data_sets
            ]
            cases.append(Case(test.name, test.model, runs, test.rtol, test.atol))
    return cases


def is_odd(value: object) -> bool:
    """Whether the runtime's Python side cannot take or give a value (bfloat16, int4 ...)."""
    return isinstance(value, TensorProto) or (
        isinstance(value, np.ndarray) and value.dtype.num >= 256
    )


def embedded(test: Any, inputs: Any, outputs: Any) -> Case:
    """Put inputs of odd types into the model as initializers, and cast odd outputs to float."""
    model = onnx.ModelProto()
    model.CopyFrom(test.model)
    graph, feeds, expected = model.graph, {}, []
    for info, value in zip(test.model.graph.input, inputs, strict=True):
        if not is_odd(value):
            feeds[info.name] = value
            continue
        tensor = value if isinstance(value, TensorProto) else numpy_helper.from_array(value)
        stored = graph.initializer.add()
        stored.CopyFrom(tensor)
        stored.name = info.name
        graph.input.remove(next(item for item in graph.input if item.name == info.name))
    for index, value in enumerate(outputs):
        if not is_odd(value):
            expected.append(value)
            continue
        array = numpy_helper.to_array(value) if isinstance(value, TensorProto) else value
        expected.append(np.asarray(array).astype(np.float32))
        name = graph.output[index].name
        graph.node.append(helper.make_node("Cast", [name], [f"{name}_float"], to=TensorProto.FLOAT))
        info = helper.make_tensor_value_info(f"{name}_float", TensorProto.FLOAT, None)
        graph.output[index].CopyFrom(info)
    return Case(test.name, model, [(feeds, expected)], test.rtol, test.atol)


def passes(model: object, case: Case) -> bool:
    session = Session(model)  # type: ignore[arg-type]
    return all(
        same(list(session.run(feeds).values()), outputs, case) for feeds, outputs in case.runs
    )


def same(got: Any, wanted: Any, case: Case) -> bool:
    if isinstance(wanted, (list, tuple)):
        return len(got) == len(wanted) and all(
            same(a, b, case) for a, b in zip(got, wanted, strict=True)
        )
    if wanted is None or got is None:
        return wanted is None and got is None
    got, wanted = np.asarray(got), np.asarray(wanted)
    if got.shape != wanted.shape:
        return False
    if got.dtype.kind in "OSU":
        return bool(got.astype(str).tolist() == wanted.astype(str).tolist())
    if got.dtype != wanted.dtype:
        return False
    return bool(np.allclose(got, wanted, rtol=case.rtol, atol=case.atol, equal_nan=True))


def through_us(case: Case, folder: Path) -> object:
    frontend = OnnxFrontend()
    # Inputs that were made initializers above may hold NaN: they are data, not weights.
    data = case.model.SerializeToString()
    program = frontend.read(data, check_weights=False)
    context = Context()
    Canonicalise().run(program, context)
    FoldConstants().run(program, context)
    path = folder / "model.onnx"
    save_program(program, path)
    return frontend.read(path, check_weights=False).model


def outcome(model: object, case: Case) -> str:
    try:
        return "" if passes(model, case) else "different outputs"
    except Exception as error:  # what the runtime says of it is the outcome
        return str(error)


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return load_cases()


def test_what_the_runtime_passes_by_itself_it_passes_after_load_simplify_and_save(
    cases: list[Case], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    able = [case for case in cases if not outcome(case.model, case)]
    failures: Mapping[str, str] = {
        case.name: why for case in able if (why := outcome_after(case, tmp_path))
    }
    with capsys.disabled():
        print(
            f"\nONNX node tests: {len(cases)}, passed by ONNX Runtime: {len(able)}, "
            f"of these after load, canonicalise, fold and save: {len(able) - len(failures)}"
        )
    assert not failures
    assert len(able) >= EXPECTED


def outcome_after(case: Case, folder: Path) -> str:
    try:
        model = through_us(case, folder)
    except Exception as error:  # reported with the case's name
        return f"{type(error).__name__}: {error}"
    return outcome(model, case)
