"""The ONNX frontend: a file, bytes, a ``ModelProto`` or a graph in memory becomes a Program."""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir

from qcomp.errors import QcompError, SourceError
from qcomp.frontends.onnx_safety import check_model
from qcomp.frontends.onnx_tensors import find_not_finite, resolve_external
from qcomp.ir.circuit import Circuit
from qcomp.ir.mapped_tensor import MappedTensor
from qcomp.ir.program import Program, is_circuit_node
from qcomp.model_file import initializers

__all__ = ["OnnxFrontend"]

_SUFFIXES = frozenset({".onnx", ".pb"})
_MAX_FILE = (1 << 31) - 1
_QASM = "qasm"
_MICROSOFT = "com.microsoft"
_DEFAULTS_SINCE = 4
"""The IR version since which an input may have a default value."""


class OnnxFrontend:
    """Reads ONNX models.

    External data is checked and mapped, never loaded. Functions, subgraphs and operators of
    unknown domains are kept as they are. ``ai.qcomp::Circuit`` nodes bring their circuits along
    as OpenQASM 3 text.
    """

    name = "onnx"

    def accepts(self, source: object) -> bool:
        """Tell whether ``source`` looks like ONNX; nothing is parsed.

        Args:
            source: Anything a user may hand to the compiler.
        """
        if isinstance(source, (onnx.ModelProto, ir.Model)):
            return True
        if isinstance(source, (bytes, bytearray, memoryview)):
            # Field 1, the IR version, is what every writer puts first.
            return bytes(source[:1]) == b"\x08"
        if isinstance(source, (str, os.PathLike)):
            return Path(source).suffix.lower() in _SUFFIXES
        return False

    def read(
        self,
        source: object,
        *,
        base_dir: str | os.PathLike[str] | None = None,
        check_weights: bool = True,
    ) -> Program:
        """Read a model.

        Args:
            source: A path, the bytes of a file, an ``onnx.ModelProto`` or an ``onnx_ir.Model``.
                The graph in memory is taken over, not copied.
            base_dir: The folder that external data of bytes or of a ``ModelProto`` lies in. A
                file has its own folder.
            check_weights: Read every floating-point initializer once, in pieces, and refuse NaN.

        Returns:
            The program.

        Raises:
            SourceError: When the model is malformed, unsafe, or holds NaN in its weights.
        """
        where = "the model"
        folder = Path(base_dir) if base_dir is not None else None
        notes: list[str] = []
        if isinstance(source, ir.Model):
            model = source
            with _malformed(where):
                _check_graph_in_memory(model)
        else:
            if isinstance(source, onnx.ModelProto):
                proto = source
            elif isinstance(source, (bytes, bytearray, memoryview)):
                with _malformed(where):
                    proto = _parse(memoryview(source))
            elif isinstance(source, (str, os.PathLike)):
                where = str(source)
                folder = Path(source).absolute().parent
                proto = _read_file(Path(source))
            else:
                raise SourceError(f"a {type(source).__name__} is not an ONNX model")
            with _malformed(where):
                findings = check_model(proto, folder)
                findings.raise_if_any()
                notes += findings.warnings
                model = _from_proto(proto, folder)
        with _malformed(where):
            _map_external_data(model)
            notes += _tidy(model)
            if check_weights:
                notes += _check_weights(model)
            program = Program(model, _circuits(model), source=where)
        program.notes += notes
        return program


@contextlib.contextmanager
def _malformed(where: str) -> Iterator[None]:
    """Turn what a library says of a broken model into one clear error.

    The libraries below raise nearly anything for a mutated file (``UnicodeDecodeError``,
    ``KeyError``, ``AssertionError``, ``RecursionError``...), and none of it is ours to pass on.
    """
    try:
        yield
    except SourceError as error:
        error.where = f"{where}, {error.where}" if error.where else where
        raise
    except QcompError:
        raise
    except OSError as error:
        raise SourceError(
            "a file of the model cannot be read",
            where=where,
            why=f"{error.strerror or error}: '{error.filename}'",
        ) from error
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise SourceError(
            "the ONNX model is malformed",
            where=where,
            why=f"{cause}"[:500] or type(cause).__name__,
            hint="onnx.checker.check_model may tell more",
        ) from error


def _read_file(path: Path) -> onnx.ModelProto:
    """Parse a file through a mapping, so that its bytes are in memory only once."""
    where = str(path)
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                raise SourceError("the file is empty", where=where)
            if size > _MAX_FILE:
                raise SourceError(
                    f"the file has {size:,} bytes, and protobuf holds at most 2 GiB",
                    where=where,
                    hint="store its weights as external data",
                )
            with (
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
                memoryview(mapped) as view,
                _malformed(where),
            ):
                return _parse(view)
    except OSError as error:
        raise SourceError(
            "the file cannot be read", where=where, why=error.strerror or str(error)
        ) from error


def _parse(data: memoryview) -> onnx.ModelProto:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        return onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise SourceError(
            "this is not an ONNX model, or it is cut off",
            why=str(error),
            hint="the file may be incomplete: compare its size with the original",
        ) from error


def _from_proto(proto: onnx.ModelProto, folder: Path | None) -> ir.Model:
    model = ir.from_proto(proto)
    if folder is not None:
        for _, tensor in initializers(model):
            if isinstance(tensor, ir.ExternalTensor):
                tensor.base_dir = folder
        for _, tensor in _attribute_tensors(model):
            if isinstance(tensor, ir.ExternalTensor):
                tensor.base_dir = folder
    return model


def _map_external_data(model: ir.Model) -> None:
    """Give every external initializer a mapping that is checked, and that nothing keeps open."""
    for value, tensor in list(initializers(model)):
        if isinstance(tensor, ir.ExternalTensor) and not isinstance(tensor, MappedTensor):
            value.const_value = _mapped(tensor)
    for node, tensor in list(_attribute_tensors(model)):
        if isinstance(tensor, ir.ExternalTensor):
            # Not many runtimes look for the data of an attribute in another file.
            for name, attribute in list(node.attributes.items()):
                if attribute.value is tensor:
                    loaded = ir.Tensor(_mapped(tensor).numpy(), dtype=tensor.dtype)
                    node.attributes[name] = ir.AttrTensor(name, loaded)


def _mapped(tensor: ir.ExternalTensor) -> MappedTensor:
    location = os.fspath(tensor.location)
    path = resolve_external(location, Path(os.fspath(tensor.base_dir) or "."))
    mapped = MappedTensor(
        path,
        location,
        tensor.offset or 0,
        tensor.dtype,
        shape=ir.Shape(tensor.shape.numpy()),
        name=tensor.name,
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
    )
    if (mapped.offset or 0) + mapped.nbytes > path.stat().st_size:
        raise SourceError(
            f"the data file '{location}' is too short for tensor '{tensor.name}'",
            hint="the file may be incomplete: compare its size with the original",
        )
    return mapped


def _all_nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Give every node of the graph, its subgraphs and the functions."""
    yield from model.graph.all_nodes()
    for function in model.functions.values():
        yield from function.all_nodes()


def _attribute_tensors(model: ir.Model) -> Iterator[tuple[ir.Node, ir.TensorProtocol]]:
    for node in _all_nodes(model):
        for attribute in node.attributes.values():
            if not attribute.is_ref() and attribute.type == ir.AttributeType.TENSOR:
                yield node, attribute.as_tensor()


def _check_graph_in_memory(model: ir.Model) -> None:
    """Refuse a graph that reads what nothing defines (a file's graph is checked as a file)."""
    for node in _all_nodes(model):
        for value in node.inputs:
            if value is None or value.producer() is not None:
                continue
            if not (value.is_graph_input() or value.is_initializer()):
                raise SourceError(
                    f"'{value.name}' is read but nothing defines it",
                    where=f"node '{node.name}' ({node.op_type})",
                )


def _tidy(model: ir.Model) -> list[str]:
    """Bring the legal spellings of one thing to one form; return what the user should know."""
    notes = []
    owners: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for owner in owners:
        imports = owner.opset_imports
        if "ai.onnx" in imports:
            imports[""] = imports.pop("ai.onnx")
        if any(node.domain == _MICROSOFT for node in owner.all_nodes()):
            # ONNX Runtime's own optimizer leaves it out.
            imports.setdefault(_MICROSOFT, 1)
        before = list(owner)
        try:
            owner.sort()
        except ValueError as error:
            raise SourceError("the graph has a cycle") from error
        if any(was is not now for was, now in zip(before, owner, strict=True)):
            notes.append("the nodes were not in the order of their dependencies; they are now")
    if (model.ir_version or 0) < _DEFAULTS_SINCE:
        # Every initializer had to be an input, and no runtime takes another value for it.
        for value in [value for value in model.graph.inputs if value.is_initializer()]:
            model.graph.inputs.remove(value)
        model.ir_version = _DEFAULTS_SINCE
    unknown = 0
    for value in _values(model):
        if value.type is None:
            # A shape of nothing cannot be written again.
            value.shape = None
        dims = list(value.shape or ())
        if any(isinstance(dim, int) and dim < 0 for dim in dims):
            value.shape = ir.Shape(
                [None if isinstance(dim, int) and dim < 0 else dim for dim in dims]
            )
            unknown += 1
    if unknown:
        notes.append(f"{unknown} shapes have a dimension of -1; it is taken as unknown")
    return notes


def _values(model: ir.Model) -> Iterator[ir.Value]:
    for graph in model.graphs():
        yield from graph.inputs
    for node in _all_nodes(model):
        yield from node.outputs


def _check_weights(model: ir.Model) -> list[str]:
    """Refuse NaN in an initializer; return a note on the infinite ones (masks have them)."""
    infinite, broken = [], []
    for value, tensor in initializers(model):
        nan, inf = find_not_finite(tensor)
        if nan:
            broken.append(f"'{value.name}'")
        elif inf:
            infinite.append(f"'{value.name}'")
    if broken:
        raise SourceError(
            f"the weights hold NaN: {'initializer' if len(broken) == 1 else 'initializers'} "
            + ", ".join(broken[:10])
            + (f" and {len(broken) - 10} more" if len(broken) > 10 else ""),
            why="a model with NaN in its weights computes NaN",
            hint="export the model again from a good checkpoint",
        )
    if not infinite:
        return []
    more = f" and {len(infinite) - 5} more" if len(infinite) > 5 else ""
    return [f"infinite values in initializer {', '.join(infinite[:5])}{more}"]


def _circuits(model: ir.Model) -> dict[str, Circuit]:
    """Read the circuits that ride along in the nodes and take their text out of the graph."""
    circuits: dict[str, Circuit] = {}
    texts: dict[str, str] = {}
    for node in _all_nodes(model):
        if not is_circuit_node(node):
            continue
        name_attr, text_attr = node.attributes.get("circuit"), node.attributes.get(_QASM)
        where = f"node '{node.name}'"
        if name_attr is None or name_attr.type != ir.AttributeType.STRING:
            raise SourceError("a Circuit node does not name its circuit", where=where)
        name = name_attr.as_string()
        if text_attr is None or text_attr.type != ir.AttributeType.STRING:
            if name not in texts:
                raise SourceError(
                    f"the Circuit node brings no OpenQASM text of circuit '{name}'",
                    where=where,
                    hint="save the program with qcomp, which puts the text into the node",
                )
            continue
        text = text_attr.as_string()
        if texts.setdefault(name, text) != text:
            raise SourceError(f"two nodes bring different circuits '{name}'", where=where)
        if name not in circuits:
            circuits[name] = _read_circuit(text, name, where)
        del node.attributes[_QASM]
    return circuits


def _read_circuit(text: str, name: str, where: str) -> Circuit:
    try:
        circuit = Circuit.from_qasm(text)
    except SourceError as error:
        raise SourceError(
            f"the circuit '{name}' cannot be read: {error.what}",
            where=f"{where}, {error.where}" if error.where else where,
            why=error.why,
            hint=error.hint,
        ) from error
    circuit.name = name
    return circuit
