"""The ONNX frontend reads every form of a model and leaves what it does not know untouched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from qcomp.errors import SourceError
from qcomp.frontends.onnx_model import OnnxFrontend
from qcomp.ir.mapped_tensor import MappedTensor
from tests import models


@pytest.fixture
def frontend() -> OnnxFrontend:
    return OnnxFrontend()


def test_a_path_bytes_a_proto_and_a_graph_in_memory_give_the_same_program(
    frontend: OnnxFrontend, tmp_path: Path
) -> None:
    proto = models.small_cnn()
    path = tmp_path / "model.onnx"
    onnx.save(proto, path)
    sources = [path, str(path), path.read_bytes(), bytearray(path.read_bytes()), proto]
    sources.append(ir.from_proto(proto))
    texts = {ir.to_proto(frontend.read(source).model).SerializeToString() for source in sources}
    assert len(texts) == 1


def test_it_accepts_what_looks_like_onnx_and_nothing_else(frontend: OnnxFrontend) -> None:
    proto = models.mlp()
    assert frontend.accepts("model.onnx")
    assert frontend.accepts(Path("MODEL.ONNX"))
    assert frontend.accepts(proto)
    assert frontend.accepts(proto.SerializeToString())
    assert frontend.accepts(ir.from_proto(proto))
    for other in ("circuit.qasm", "OPENQASM 3.0;", b"PK\x03\x04", 7, None):
        assert not frontend.accepts(other)


@pytest.mark.parametrize(
    "build",
    [
        models.with_if,
        models.with_loop,
        models.with_scan,
        models.with_function,
        models.with_custom_domain,
    ],
    ids=lambda build: build.__name__,
)
def test_subgraphs_functions_and_unknown_operators_survive_untouched(
    frontend: OnnxFrontend, build: object
) -> None:
    proto = build()  # type: ignore[operator]
    again = ir.to_proto(frontend.read(proto.SerializeToString()).model)
    assert nodes_of(again) == nodes_of(proto)
    assert [f.name for f in again.functions] == [f.name for f in proto.functions]


def nodes_of(proto: onnx.ModelProto) -> list[str]:
    bodies = [proto.graph.node, *(function.node for function in proto.functions)]
    return [str(strip(node)) for body in bodies for node in body]


def strip(node: onnx.NodeProto) -> onnx.NodeProto:
    """Drop what says nothing: the names and shapes that a reader may add to a subgraph."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.name = ""
    if not copy.domain:
        copy.ClearField("domain")
    for attribute in copy.attribute:
        attribute.g.ClearField("value_info")
        for inner in attribute.g.node:
            inner.CopyFrom(strip(inner))
        if not attribute.g.ByteSize():
            attribute.ClearField("g")
    return copy


def with_external(folder: Path, location: str = "model.data") -> Path:
    path = folder / "model.onnx"
    onnx.save(
        models.mlp((64, 64, 4)),
        path,
        save_as_external_data=True,
        location=location,
        size_threshold=100,
    )
    return path


def test_external_data_is_mapped_and_not_kept(frontend: OnnxFrontend, tmp_path: Path) -> None:
    program = frontend.read(with_external(tmp_path))
    tensor = program.model.graph.initializers["w0"].const_value
    assert isinstance(tensor, MappedTensor)
    assert tensor.raw is None
    expected = numpy_helper.to_array(models.mlp((64, 64, 4)).graph.initializer[0])
    np.testing.assert_array_equal(tensor.numpy(), expected)
    assert not tensor.numpy().flags.writeable
    assert tensor.numpy() is not tensor.numpy()
    assert tensor.raw is None


def test_a_model_is_found_from_another_working_folder(
    frontend: OnnxFrontend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_external(tmp_path)
    monkeypatch.chdir(tmp_path)
    program = frontend.read("model.onnx")
    monkeypatch.chdir("/")
    assert program.model.graph.initializers["w0"].const_value.numpy().shape == (64, 64)


def test_a_graph_in_memory_gets_its_external_data_mapped_too(
    frontend: OnnxFrontend, tmp_path: Path
) -> None:
    program = frontend.read(ir.load(with_external(tmp_path)))
    assert isinstance(program.model.graph.initializers["w0"].const_value, MappedTensor)


def test_bytes_with_external_data_need_to_be_told_the_folder(
    frontend: OnnxFrontend, tmp_path: Path
) -> None:
    data = with_external(tmp_path).read_bytes()
    with pytest.raises(SourceError, match="a model from memory has no folder"):
        frontend.read(data)
    program = frontend.read(data, base_dir=tmp_path)
    assert isinstance(program.model.graph.initializers["w0"].const_value, MappedTensor)


def test_the_data_of_an_attribute_is_read_in(frontend: OnnxFrontend, tmp_path: Path) -> None:
    proto = helper.make_model(
        helper.make_graph(
            [
                helper.make_node(
                    "Constant", [], ["c"], value=numpy_helper.from_array(np.ones(300, "f"), "c")
                ),
                helper.make_node("Neg", ["c"], ["y"]),
            ],
            "g",
            [],
            [helper.make_tensor_value_info("y", 1, [300])],
        ),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )
    path = tmp_path / "m.onnx"
    onnx.save(
        proto,
        path,
        save_as_external_data=True,
        size_threshold=0,
        convert_attribute=True,
        location="m.data",
    )
    program = frontend.read(path)
    (tmp_path / "m.data").unlink()
    constant = next(iter(program.model.graph)).attributes["value"].as_tensor()
    np.testing.assert_array_equal(constant.numpy(), np.ones(300, "f"))


def test_nodes_in_the_wrong_order_are_sorted_and_it_is_said(frontend: OnnxFrontend) -> None:
    proto = models.mlp()
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend(reversed(nodes))
    program = frontend.read(proto)
    assert [node.op_type for node in program.model.graph] == ["Gemm", "Relu", "Gemm"]
    assert any("order" in note for note in program.notes)
    assert frontend.read(models.mlp()).notes == []


def test_a_dimension_of_minus_one_is_unknown_and_it_is_said(frontend: OnnxFrontend) -> None:
    proto = models.mlp()
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    program = frontend.read(proto)
    assert program.model.graph.inputs[0].shape == ir.Shape([None, 8])
    assert any("-1" in note for note in program.notes)


def test_infinities_in_a_mask_are_only_noted(frontend: OnnxFrontend) -> None:
    proto = models.mlp()
    bias = np.full(16, -np.inf, np.float32)
    proto.graph.initializer[1].CopyFrom(numpy_helper.from_array(bias, "b0"))
    program = frontend.read(proto)
    assert program.notes == ["infinite values in initializer 'b0'"]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("external", [False, True])
def test_nan_in_a_weight_is_refused_by_name(
    frontend: OnnxFrontend, dtype: type[np.floating], external: bool, tmp_path: Path
) -> None:
    weight = np.ones((700, 9), dtype)
    weight[-1, -1] = np.nan
    proto = helper.make_model(
        helper.make_graph(
            [helper.make_node("Neg", ["w"], ["y"])],
            "g",
            [],
            [
                helper.make_tensor_value_info(
                    "y", helper.np_dtype_to_tensor_dtype(weight.dtype), None
                )
            ],
            [numpy_helper.from_array(weight, "w")],
        ),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )
    path = tmp_path / "m.onnx"
    onnx.save(proto, path, save_as_external_data=external, size_threshold=0)
    with pytest.raises(SourceError, match="the weights hold NaN: initializer 'w'"):
        frontend.read(path)
    assert frontend.read(path, check_weights=False).notes == []


def test_a_file_that_cannot_be_read_is_one_clear_error(
    frontend: OnnxFrontend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(tensor: object) -> None:
        raise PermissionError(13, "Permission denied", "w.data")

    monkeypatch.setattr("qcomp.frontends.onnx_model.find_not_finite", refuse)
    with pytest.raises(SourceError, match="cannot be read") as caught:
        frontend.read(with_external(tmp_path))
    assert caught.value.why == "Permission denied: 'w.data'"


def test_a_large_finite_tensor_whose_sum_overflows_is_fine(frontend: OnnxFrontend) -> None:
    proto = models.mlp()
    bias = np.full(16, 3e38, np.float32)
    proto.graph.initializer[1].CopyFrom(numpy_helper.from_array(bias, "b0"))
    assert frontend.read(proto).notes == []
