"""The frontend ``observables``: a sum of Pauli products becomes the program of its evolution."""

from __future__ import annotations

import os
from pathlib import Path

import onnx_ir as ir

from qcomp.errors import SourceError, UsageError
from qcomp.ir.observable import Observable
from qcomp.ir.program import DOMAIN, OPSET, Program

__all__ = ["ObservableFrontend"]

_SUFFIX = ".pauli"
_MAX_BYTES = 1 << 24


class ObservableFrontend:
    """Reads observables and ``.pauli`` files, such as ``0.5*Z0*Z1 - X2``, line breaks allowed.

    The program is one node ``ai.qcomp::Hamiltonian``, which the pass ``evolve`` turns into a
    circuit for ``exp(-i H t)``.
    """

    name = "observables"

    def accepts(self, source: object) -> bool:
        """Tell whether ``source`` is an observable or looks like a file of one."""
        if isinstance(source, Observable):
            return True
        return isinstance(source, str | os.PathLike) and Path(source).suffix.lower() == _SUFFIX

    def read(
        self,
        source: object,
        *,
        time: float | None = None,
        steps: int | None = None,
        order: int | None = None,
    ) -> Program:
        """Read an observable.

        Args:
            source: An :class:`~qcomp.ir.observable.Observable`, or the path of a ``.pauli`` file.
            time: Time of the evolution.
            steps: Steps of the product formula.
            order: Its order: 1, 2 or 4.

        Returns:
            The program: one node, which the pass ``evolve`` lowers to a circuit.

        Raises:
            SourceError: If the file cannot be read, or holds no sum of Pauli products.
        """
        name, where = "evolution", ""
        if isinstance(source, Observable):
            observable = source
        elif isinstance(source, str | os.PathLike):
            where = os.fspath(source)
            observable = _load(Path(source))
        else:
            raise SourceError(f"a {type(source).__name__} is no observable")
        given = {"time": time, "steps": steps, "order": order}
        options = [f"{key}={value}" for key, value in given.items() if value is not None]
        text = ir.StringTensor([str(observable).encode()], shape=ir.Shape([1]), name="observable")
        constant = ir.Value(name="observable", const_value=text)
        constant.type, constant.shape = ir.TensorType(ir.DataType.STRING), ir.Shape([1])
        attributes = [ir.AttrStrings("options", options)] if options else []
        node = ir.Node(DOMAIN, "Hamiltonian", [constant], attributes, name=name)
        node.outputs[0].name = f"{name}_probs"
        node.outputs[0].type = ir.TensorType(ir.DataType.DOUBLE)
        graph = ir.Graph(
            [],
            node.outputs,
            nodes=[node],
            initializers=[constant],
            opset_imports={"": OPSET, DOMAIN: 1},
            name=name,
        )
        program = Program(ir.Model(graph, ir_version=10, producer_name="qcomp"))
        program.source = where
        return program


def _load(path: Path) -> Observable:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise SourceError("a file of Pauli products has at most 16 MiB", where=str(path))
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(
            "the file of Pauli products cannot be read", where=str(path), why=str(error)[:200]
        ) from error
    try:
        return Observable.parse(" ".join(text.split()))
    except UsageError as error:
        short = " ".join(text.split())[:60]
        raise SourceError(
            f"the file holds no sum of Pauli products: '{short}'",
            where=str(path),
            hint="write for example 0.5*Z0*Z1 + X2",
        ) from error
