"""Saving and reading gives the same program, large tensors are streamed, nothing is left half."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcomp import model_file
from qcomp.backends.onnx_file import OnnxBackend, save_program
from qcomp.errors import QcompError, SourceError
from qcomp.execute import Session
from qcomp.frontends.onnx_model import OnnxFrontend
from qcomp.ir.mapped_tensor import MappedTensor
from qcomp.ir.program import Program
from qcomp.passmanager import Context
from tests import models
from tests.test_atomic import full_disk

BUILDERS = [
    models.mlp,
    models.small_cnn,
    models.with_if,
    models.with_loop,
    models.with_scan,
    models.with_function,
    models.with_custom_domain,
]


def read(source: object) -> Program:
    return OnnxFrontend().read(source)


def lazy_model(count: int, size: int, log: list[str]) -> Program:
    """A chain of additions of weights that are made when they are asked for."""

    def make(index: int) -> ir.Tensor:
        log.append(f"make {index}")
        return ir.Tensor(np.full(size, index, np.float32))

    x = ir.val("x", ir.DataType.FLOAT, [size])
    value, nodes, stored = x, [], []
    for index in range(count):
        tensor = ir.LazyTensor(
            lambda index=index: make(index), ir.DataType.FLOAT, ir.Shape([size]), name=f"w{index}"
        )
        weight = ir.val(f"w{index}", const_value=tensor)
        stored.append(weight)
        node = ir.node("Add", [value, weight], name=f"add{index}")
        value = node.outputs[0]
        value.name = f"v{index}"
        nodes.append(node)
    value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([size])
    graph = ir.Graph(
        [x], [value], nodes=nodes, initializers=stored, opset_imports={"": 21}, name="lazy"
    )
    return Program(ir.Model(graph, ir_version=10))


@pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__)
@pytest.mark.parametrize("threshold", [None, 1])
def test_a_saved_program_reads_back_identical(
    build: object, threshold: int | None, tmp_path: Path
) -> None:
    program = read(build())  # type: ignore[operator]
    before = ir.to_proto(program.model).SerializeToString(deterministic=True)
    path = tmp_path / "model.onnx"
    save_program(program, path, external_threshold=threshold)
    assert ir.to_proto(program.model).SerializeToString(deterministic=True) == before
    again = read(path)
    ir.external_data.load_to_model(again.model)
    first, second = onnx.ModelProto.FromString(before), ir.to_proto(again.model)
    for proto in (first, second):
        for tensor in proto.graph.initializer:
            array = onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    assert second == first


def test_the_same_program_is_saved_as_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save_program(read(models.small_cnn()), tmp_path / name / "m.onnx", external_threshold=1)
    for file in ("m.onnx", "m.onnx.data"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_circuits_ride_along_as_openqasm_text(tmp_path: Path) -> None:
    program = models.hybrid(2)
    path = tmp_path / "hybrid.onnx"
    program.save(path)
    assert all("qasm" not in node.attributes for node in program.circuit_nodes())
    nodes = [n for n in onnx.load(path).graph.node if n.op_type == "Circuit"]
    texts = [a.s.decode() for node in nodes for a in node.attribute if a.name == "qasm"]
    assert len(texts) == 2
    assert all(text.startswith("OPENQASM 3") for text in texts)
    again = read(path)
    assert list(again.circuits) == list(program.circuits)
    for name, circuit in program.circuits.items():
        assert again.circuits[name].to_qasm3() == circuit.to_qasm3()
        assert again.circuits[name].params == circuit.params
    assert "qasm" not in again.circuit_nodes()[0].attributes
    again.save(tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()


def test_large_tensors_go_out_and_are_aligned_and_the_runtime_reads_them(tmp_path: Path) -> None:
    model = models.mlp((64, 128, 8))
    path = tmp_path / "model.onnx"
    files = save_program(read(model), path, external_threshold=1000)
    assert [file.name for file in files] == ["model.onnx", "model.onnx.data"]
    stored = onnx.load(path, load_external_data=False).graph.initializer
    places = {
        tensor.name: {entry.key: entry.value for entry in tensor.external_data}
        for tensor in stored
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    }
    assert set(places) == {"w0", "w1"}
    assert all(int(place["offset"]) % 64 == 0 for place in places.values())
    x = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
    wanted = Session(model).run({"x": x})["y"]
    np.testing.assert_array_equal(Session(path).run({"x": x})["y"], wanted)


def test_beyond_the_limit_of_one_file_tensors_go_out_by_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_file, "INLINE_LIMIT", 10_000)
    save_program(read(models.mlp((64, 64, 4))), tmp_path / "large.onnx")
    save_program(read(models.mlp((8, 8, 4))), tmp_path / "small.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "large.onnx",
        "large.onnx.data",
        "small.onnx",
    ]


def test_lazy_tensors_are_made_once_and_one_at_a_time(tmp_path: Path) -> None:
    log: list[str] = []
    program = lazy_model(4, 1000, log)
    save_program(
        program,
        tmp_path / "m.onnx",
        external_threshold=1,
        progress=lambda name: log.append(f"save {name}"),
    )
    assert log == [step for i in range(4) for step in (f"save w{i}", f"make {i}")]
    weights = read(tmp_path / "m.onnx").model.graph.initializers
    assert weights["w3"].const_value.numpy().tolist() == [3.0] * 1000


def test_a_lazy_tensor_that_gives_another_shape_is_an_error(tmp_path: Path) -> None:
    program = lazy_model(1, 10, [])
    value = program.model.graph.initializers["w0"]
    value.const_value = ir.LazyTensor(
        lambda: ir.Tensor(np.zeros(3, np.float32)), ir.DataType.FLOAT, ir.Shape([10]), name="w0"
    )
    with pytest.raises(QcompError, match="gave 12 bytes where its type and shape need 40"):
        save_program(program, tmp_path / "m.onnx", external_threshold=1)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_model_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    save_program(lazy_model(2, 1000, []), path, external_threshold=1)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    for threshold in (1, None):
        with pytest.raises(QcompError, match="disk is full"), full_disk(6000):
            save_program(lazy_model(5, 1000, []), path, external_threshold=threshold)
        assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_program_can_be_saved_over_the_files_it_is_mapped_from(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    model = models.mlp((64, 64, 4))
    save_program(read(model), path, external_threshold=1)
    program = read(path)
    assert isinstance(program.model.graph.initializers["w0"].const_value, MappedTensor)
    save_program(program, path, external_threshold=1)
    x = np.ones((1, 64), np.float32)
    expected = Session(model).run({"x": x})["y"]
    np.testing.assert_array_equal(Session(path).run({"x": x})["y"], expected)
    with pytest.raises(SourceError, match="was changed or removed"):
        program.model.graph.initializers["w0"].const_value.numpy()


def test_a_small_model_with_mapped_weights_is_saved_standing_alone(tmp_path: Path) -> None:
    save_program(read(models.mlp()), tmp_path / "a.onnx", external_threshold=1)
    save_program(read(tmp_path / "a.onnx"), tmp_path / "b.onnx")
    (tmp_path / "a.onnx.data").unlink()
    Session(tmp_path / "b.onnx").run({"x": np.ones((1, 8), np.float32)})


@pytest.mark.parametrize("dtype", ["INT4", "UINT4", "INT2", "FLOAT16", "BFLOAT16", "BOOL"])
def test_packed_and_short_types_survive_the_data_file(dtype: str, tmp_path: Path) -> None:
    kind = ir.DataType[dtype]
    array = np.arange(15).reshape(3, 5) % 2
    tensor = ir.Tensor(array.astype(kind.numpy()), dtype=kind, name="w")
    x = ir.val("x", ir.DataType.FLOAT, [3, 5])
    weight = ir.val("w", const_value=tensor)
    cast = ir.node("Cast", [weight], {"to": 1}, name="cast")
    cast.outputs[0].name = "c"
    add = ir.node("Add", [x, cast.outputs[0]], name="add")
    y = add.outputs[0]
    y.name, y.type, y.shape = "y", ir.TensorType(ir.DataType.FLOAT), ir.Shape([3, 5])
    graph = ir.Graph(
        [x], [y], nodes=[cast, add], initializers=[weight], opset_imports={"": 25}, name="g"
    )
    path = tmp_path / "m.onnx"
    save_program(Program(ir.Model(graph, ir_version=13)), path, external_threshold=1)
    stored = read(path).model.graph.initializers["w"].const_value
    assert isinstance(stored, MappedTensor)
    assert stored.dtype == kind
    assert stored.tobytes() == tensor.tobytes()
    np.testing.assert_array_equal(stored.numpy().astype(int), array)


def test_the_backend_writes_the_program(tmp_path: Path) -> None:
    files = OnnxBackend().write(read(models.mlp()), tmp_path / "m.onnx", None, Context())  # type: ignore[arg-type]
    assert files == [tmp_path / "m.onnx"]
    assert read(files[0]).model.graph.name == "mlp"
