"""Every consumer by its name: what it needs, and where it is."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from qcomp.consumers.outcomes import Outcome
from qcomp.errors import UsageError, suggest
from qcomp.ir.circuit import Circuit

__all__ = ["CONSUMERS", "Consumer", "ConsumerEntry", "get_consumer"]


class Consumer(Protocol):
    """A reader of OpenQASM text that is not ours."""

    def load(self, text: str, values: Mapping[str, float], ours: Circuit) -> object:
        """Return the text as the consumer has it.

        Args:
            text: The text.
            values: A number for each ``input`` of the text.
            ours: The text as qcomp reads it, for names of wires.

        Raises:
            Exception: Of any kind, if the consumer does not take the text.
        """
        ...

    def outcome(self, loaded: object) -> Outcome | str:
        """Return what the consumer's simulator makes of it, or why there is nothing to compare."""
        ...


@dataclass(frozen=True, slots=True)
class ConsumerEntry:
    """A consumer that may be installed or not.

    Attributes:
        name: The name that ``--consumer`` takes.
        what: What is run, one line.
        modules: What must be importable.
        package: What to install for it.
        path: ``module:class`` of its :class:`Consumer`.
        versions: Versions of OpenQASM that it reads; none for emulators of one vendor's machines.
        option: Argument of the class; nothing when empty.
    """

    name: str
    what: str
    modules: tuple[str, ...]
    package: str
    path: str
    versions: tuple[int, ...] = ()
    option: str = ""

    @property
    def installed(self) -> bool:
        """Whether its packages are there."""
        return all(_is_there(module) for module in self.modules)

    @property
    def _distribution(self) -> str:
        return self.package.split()[0].partition("[")[0]

    @property
    def version(self) -> str:
        """The package's version; empty when it is not installed."""
        try:
            return importlib.metadata.version(self._distribution)
        except importlib.metadata.PackageNotFoundError:
            return ""

    def load(self) -> Consumer:
        """Import and make it.

        Raises:
            UsageError: If its packages are not installed.
        """
        if not self.installed:
            raise UsageError(
                f"the consumer '{self.name}' needs the package '{self._distribution}', which is "
                "not installed",
                hint=f"pip install '{self.package}'"
                if "[" in self.package
                else f"pip install {self.package}",
            )
        module, _, name = self.path.partition(":")
        kind = getattr(importlib.import_module(module), name)
        made: Consumer = kind(self.option) if self.option else kind()
        return made


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _emulator(name: str, vendor: str) -> ConsumerEntry:
    return ConsumerEntry(
        name,
        f"Amazon Braket's emulator of a device with {vendor}'s native gates: verbatim text only",
        ("braket.emulation",),
        "amazon-braket-sdk",
        "qcomp.consumers.braket_reader:Emulator",
        option=name,
    )


CONSUMERS: Mapping[str, ConsumerEntry] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            ConsumerEntry(
                "reference",
                "the reference parser of OpenQASM 3; its printed tree is read again by qcomp",
                ("openqasm3", "antlr4"),
                "openqasm3[parser]",
                "qcomp.consumers.readers:Reference",
                (3,),
            ),
            ConsumerEntry(
                "qiskit",
                "qiskit.qasm3.loads or qiskit.qasm2.loads, and Qiskit's matrices",
                ("qiskit", "qiskit_qasm3_import"),
                "qiskit qiskit-qasm3-import",
                "qcomp.consumers.qiskit_reader:QiskitReader",
                (2, 3),
            ),
            ConsumerEntry(
                "braket",
                "Amazon Braket's Circuit.from_ir and LocalSimulator",
                ("braket.circuits", "braket.devices"),
                "amazon-braket-sdk",
                "qcomp.consumers.braket_reader:Braket",
                (3,),
            ),
            ConsumerEntry(
                "pyqasm",
                "pyqasm's loads, validate and unroll; what it unrolls is read again by qcomp",
                ("pyqasm",),
                "pyqasm",
                "qcomp.consumers.readers:PyQasm",
                (2, 3),
            ),
            ConsumerEntry(
                "pytket",
                "pytket's reader of OpenQASM 2, Quantinuum's include too, and its state vector",
                ("pytket",),
                "pytket",
                "qcomp.consumers.readers:PyTket",
                (2,),
            ),
            _emulator("rigetti", "Rigetti"),
            _emulator("iqm", "IQM"),
            _emulator("ionq", "IonQ"),
        )
    }
)
"""Every consumer by its name."""


def get_consumer(name: str) -> ConsumerEntry:
    """Return the consumer of that name.

    Raises:
        UsageError: If there is none.
    """
    if name not in CONSUMERS:
        raise UsageError(f"there is no consumer '{name}'", hint=suggest(name, [*CONSUMERS, "all"]))
    return CONSUMERS[name]
