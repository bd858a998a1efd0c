"""A malformed or malicious model gives one clear error that names the place."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qcomp.errors import SourceError
from qcomp.frontends.onnx_model import OnnxFrontend
from tests import models


def refused(source: object, match: str, **options: object) -> SourceError:
    with pytest.raises(SourceError, match=match) as caught:
        OnnxFrontend().read(source, **options)  # type: ignore[arg-type]
    return caught.value


def external(folder: Path, **entries: str) -> onnx.ModelProto:
    """An MLP whose first weight is said to lie in a file."""
    proto = models.mlp()
    weight = proto.graph.initializer[0]
    data = weight.raw_data
    (folder / "w.data").write_bytes(data)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "w.data", **entries}.items():
        entry = weight.external_data.add()
        entry.key, entry.value = key, value
    return proto


def saved(proto: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def test_good_external_data_is_read(tmp_path: Path) -> None:
    OnnxFrontend().read(saved(external(tmp_path), tmp_path))
    OnnxFrontend().read(saved(external(tmp_path, offset="0", length="512"), tmp_path))


@pytest.mark.parametrize(
    "location",
    ["../secret", "a/../../secret", "/etc/passwd", "..\\secret", "C:\\secret", "\\\\host\\share"],
)
def test_external_data_outside_of_the_folder_is_refused(location: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(512))
    path = saved(external(folder, location=location), folder)
    error = refused(path, "outside of the model's folder")
    assert "initializer 'w0'" in str(error)


def test_a_link_out_of_the_folder_is_refused_and_one_inside_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(512))
    (folder / "out").symlink_to(tmp_path / "secret")
    (folder / "up").symlink_to(tmp_path)
    for location in ("out", "up/secret"):
        refused(saved(external(folder, location=location), folder), "is a link to")
    (folder / "in").symlink_to(folder / "w.data")
    OnnxFrontend().read(saved(external(folder, location="in"), folder))


def test_a_hard_link_is_refused(tmp_path: Path) -> None:
    path = saved(external(tmp_path), tmp_path)
    os.link(tmp_path / "w.data", tmp_path / "other")
    refused(path, "hard links")


@pytest.mark.parametrize(
    ("entries", "match"),
    [
        ({"location": "gone.data"}, "cannot be read"),
        ({"location": ""}, "without a file name"),
        ({"location": "."}, "not a plain file"),
        ({"offset": "-4"}, "no number of bytes"),
        ({"offset": "0x10"}, "no number of bytes"),
        ({"offset": "99999999999999999999999"}, "no number of bytes"),
        ({"offset": "4"}, "needs bytes 4 to 516"),
        ({"offset": "900000000000000000"}, "needs bytes"),
        ({"length": "8"}, "needs 512 bytes of external data but has 8"),
    ],
)
def test_malformed_external_data_is_refused(
    entries: dict[str, str], match: str, tmp_path: Path
) -> None:
    refused(saved(external(tmp_path, **entries), tmp_path), match)


def test_a_data_file_that_changed_after_the_check_is_refused(tmp_path: Path) -> None:
    program = OnnxFrontend().read(saved(external(tmp_path), tmp_path))
    (tmp_path / "w.data").write_bytes(bytes(300))
    tensor = program.model.graph.initializers["w0"].const_value
    for use in (tensor.numpy, tensor.tobytes):
        with pytest.raises(SourceError, match="was changed or removed"):
            use()


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    refused(path, "cannot be read")
    path.write_bytes(b"")
    refused(path, "is empty")
    path.write_bytes(b"\x7fELF not a model at all")
    refused(path, "not an ONNX model")
    path.write_bytes(b"\x08\x0a")
    refused(path, "it has no graph")
    refused(tmp_path, "cannot be read")
    refused(7, "a int is not an ONNX model")


def change(**fields: object) -> Callable[[onnx.ModelProto], None]:
    def apply(proto: onnx.ModelProto) -> None:
        for name, value in fields.items():
            setattr(proto, name, value)

    return apply


def set_dims(*dims: int) -> Callable[[onnx.ModelProto], None]:
    def apply(proto: onnx.ModelProto) -> None:
        proto.graph.initializer[0].dims[:] = dims

    return apply


def cut_data(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].raw_data = proto.graph.initializer[0].raw_data[:-3]


def wrong_field(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].ClearField("raw_data")
    proto.graph.initializer[0].int64_data.extend([1] * 128)


def twice_the_data(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].float_data.extend([1.0] * 128)


def no_data(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].ClearField("raw_data")


def unknown_type(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].data_type = 99


def no_type(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].data_type = 0


def segments(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].segment.begin = 0


def duplicate_initializer(proto: onnx.ModelProto) -> None:
    proto.graph.initializer.append(proto.graph.initializer[0])


def duplicate_output(proto: onnx.ModelProto) -> None:
    proto.graph.node[1].output[0] = "h0"
    proto.graph.node[2].input[0] = "h0"


def duplicate_input(proto: onnx.ModelProto) -> None:
    proto.graph.input.append(proto.graph.input[0])


def duplicate_attribute(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].attribute.append(proto.graph.node[0].attribute[0])


def undefined_value(proto: onnx.ModelProto) -> None:
    proto.graph.node[1].input[0] = "nowhere"


def undefined_output(proto: onnx.ModelProto) -> None:
    proto.graph.output[0].name = "nowhere"


def no_outputs(proto: onnx.ModelProto) -> None:
    del proto.graph.output[:]


def no_operator(proto: onnx.ModelProto) -> None:
    proto.graph.node[1].op_type = ""


def no_opset(proto: onnx.ModelProto) -> None:
    del proto.opset_import[:]


def future_opset(proto: onnx.ModelProto) -> None:
    proto.opset_import[0].version = 1000


def negative_shape(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = -7


def absurd_shape(proto: onnx.ModelProto) -> None:
    shape = proto.graph.input[0].type.tensor_type.shape
    for dim in (shape.dim.add(), shape.dim.add()):
        dim.dim_value = 2**60


def self_loop(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].input[0] = "h0"


def long_cycle(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].input[0] = "y"


def sparse(proto: onnx.ModelProto) -> None:
    proto.graph.sparse_initializer.add().values.name = "s"


def untyped_attribute(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].attribute[0].type = 0


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (change(ir_version=0), "IR version 0"),
        (change(ir_version=10**9), "IR version 1000000000"),
        (set_dims(-16, -8), "a dimension is negative"),
        (set_dims(2**40, 2**40), "absurd shape"),
        (set_dims(2**63 - 1), "absurd shape"),
        (set_dims(17, 8), "needs 544 bytes but 512 are there"),
        (cut_data, "needs 512 bytes but 509 are there"),
        (wrong_field, "has its data in int64_data, which is for other types"),
        (twice_the_data, "has its data twice"),
        (no_data, "needs 128 values in float_data but 0 are there"),
        (unknown_type, "unknown element type 99"),
        (no_type, "without an element type"),
        (segments, "in segments"),
        (duplicate_initializer, "initializer 'w0' is defined twice"),
        (duplicate_output, "'h0' is defined twice"),
        (duplicate_input, "input 'x' is defined twice"),
        (duplicate_attribute, "the attribute is given twice"),
        (undefined_value, "'nowhere' is read but nothing defines it"),
        (undefined_output, "the output 'nowhere' is not computed"),
        (no_outputs, "no outputs"),
        (no_operator, "a node without an operator"),
        (no_opset, "imports no operator set"),
        (future_opset, "uses opset 1000"),
        (negative_shape, "a dimension is negative: -7"),
        (absurd_shape, "the shape is absurd"),
        (self_loop, r"a cycle of 1 nodes: node #0 \(Gemm\) -> node #0 \(Gemm\)"),
        (long_cycle, "a cycle of 3 nodes"),
        (sparse, "sparse initializer 's' is not supported"),
        (untyped_attribute, "the attribute has no type"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_damaged_model_is_refused(
    damage: Callable[[onnx.ModelProto], None], match: str, tmp_path: Path
) -> None:
    proto = models.mlp()
    damage(proto)
    refused(proto, match)
    assert str(tmp_path) in refused(saved(proto, tmp_path), match).where


def test_all_faults_are_told_in_one_error() -> None:
    proto = models.mlp()
    cut_data(proto)
    undefined_value(proto)
    future_opset(proto)
    error = refused(proto, "the ONNX model has 3 faults")
    for part in ("opset 1000", "initializer 'w0'", "'nowhere'"):
        assert part in str(error)


def test_a_value_of_a_subgraph_is_not_seen_outside_of_it() -> None:
    proto = models.with_if()
    proto.graph.node.append(helper.make_node("Neg", ["i"], ["z"]))
    refused(proto, "'i' is read but nothing defines it")


def test_a_cycle_through_a_subgraph_is_found() -> None:
    proto = models.with_if()
    then_branch = proto.graph.node[1].attribute[0].g
    then_branch.node[0].input[1] = "y"
    refused(proto, "a cycle of 1 nodes")


def test_graphs_that_nest_too_deep_are_refused() -> None:
    inner = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["t"])],
        "inner",
        [],
        [helper.make_tensor_value_info("t", 1, [1])],
    )
    for _ in range(28):
        node = helper.make_node("If", ["c"], ["t"], then_branch=inner, else_branch=inner)
        del node.attribute[1:]
        inner = helper.make_graph([node], "g", [], [helper.make_tensor_value_info("t", 1, [1])])
    inner.input.append(helper.make_tensor_value_info("x", 1, [1]))
    inner.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
    proto = helper.make_model(inner, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    refused(proto, "nested more than 24 deep")


def function(name: str, calls: list[str]) -> onnx.FunctionProto:
    nodes, value = [], "a"
    for index, callee in enumerate(calls):
        domain = "local" if callee.startswith("f") else ""
        nodes.append(helper.make_node(callee, [value], [f"v{index}"], domain=domain))
        value = f"v{index}"
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("local", 1)]
    return helper.make_function("local", name, ["a"], [value], nodes, imports)


def calling(functions: list[onnx.FunctionProto]) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("f0", ["x"], ["y"], domain="local")],
        "g",
        [helper.make_tensor_value_info("x", 1, [4])],
        [helper.make_tensor_value_info("y", 1, [4])],
    )
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("local", 1)]
    return helper.make_model(graph, functions=functions, opset_imports=imports, ir_version=10)


def test_functions_that_call_themselves_are_refused() -> None:
    refused(calling([function("f0", ["f1"]), function("f1", ["Neg", "f0"])]), "calls itself")


def test_functions_that_expand_without_bound_are_refused() -> None:
    chain = [function(f"f{i}", [f"f{i + 1}"] * 10) for i in range(12)]
    refused(calling([*chain, function("f12", ["Neg"])]), "expand to more than 20,000,000 nodes")
    deep = [function(f"f{i}", [f"f{i + 1}"]) for i in range(60)]
    refused(calling([*deep, function("f60", ["Neg"])]), "nested more than 24 deep")
    OnnxFrontend().read(calling([function("f0", ["f1"] * 10), function("f1", ["Neg"])]))


def test_a_function_that_is_defined_twice_is_refused() -> None:
    refused(calling([function("f0", ["Neg"]), function("f0", ["Abs"])]), "is defined twice")


def test_map_types_are_refused_by_name() -> None:
    proto = models.mlp()
    proto.graph.input[0].type.map_type.key_type = TensorProto.INT64
    refused(proto, "map types are not supported")


def test_a_graph_in_memory_with_a_loose_end_is_refused() -> None:
    import onnx_ir as ir

    loose = ir.val("loose", ir.DataType.FLOAT, [1])
    node = ir.node("Neg", [loose], name="n")
    graph = ir.Graph([], node.outputs, nodes=[node], opset_imports={"": 21})
    refused(ir.Model(graph, ir_version=10), "'loose' is read but nothing defines it")


def circuit_node(**attributes: str) -> onnx.ModelProto:
    node = helper.make_node("Circuit", ["x"], ["y"], "q", domain="ai.qcomp", **attributes)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", 1, ["b", 1])],
        [helper.make_tensor_value_info("y", 1, ["b", 2])],
    )
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("ai.qcomp", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def test_circuit_nodes_without_a_readable_circuit_are_refused() -> None:
    refused(circuit_node(kind="probs"), "does not name its circuit")
    refused(circuit_node(circuit="c", kind="probs"), "brings no OpenQASM text of circuit 'c'")
    error = refused(
        circuit_node(circuit="c", qasm="OPENQASM 3.0;\nqubit q; h q\n"), "cannot be read"
    )
    assert "node 'q'" in error.where
    assert "line" in error.where


def test_two_circuits_of_one_name_are_refused() -> None:
    proto = circuit_node(circuit="c", kind="probs", qasm="OPENQASM 3.0;\nqubit[1] q;\n")
    other = proto.graph.node.add()
    other.CopyFrom(proto.graph.node[0])
    other.output[0] = "z"
    for attribute in other.attribute:
        if attribute.name == "qasm":
            attribute.s = b"OPENQASM 3.0;\nqubit[2] q;\n"
    refused(proto, "two nodes bring different circuits 'c'")


def test_strings_are_checked_like_numbers() -> None:
    proto = models.mlp()
    tensor = numpy_helper.from_array(np.array(["a", "b"], dtype=object), "s")
    proto.graph.initializer.append(tensor)
    OnnxFrontend().read(proto)
    proto.graph.initializer[-1].dims[0] = 3
    refused(proto, r"string\[3\] needs 3 values in string_data but 2 are there")
