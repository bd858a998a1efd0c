"""``qcomp``: the entry point. Errors become one message and an exit code here, nowhere else."""

from __future__ import annotations

import sys
from importlib import import_module

import typer

from qcomp.errors import QcompError

__all__ = ["app", "main"]

app = typer.Typer(
    name="qcomp",
    help="Compile model graphs to quantum circuits and quantized kernels.\n\n"
    "A model: qcomp compile model.onnx -t cpu-int8 --calib data.npz -o out\n\n"
    "A circuit: qcomp opt circuit.qasm -o smaller.qasm\n\n"
    "Both at once: qcomp compile hybrid.onnx -t cpu-int8+ibm-heron --calib data.npz -o out",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

_STOPPED = 130
"""Exit code after Ctrl-C, as shells have it."""

COMMANDS = (
    "compile",
    "sweep",
    "opt",
    "run",
    "bind",
    "submit",
    "jobs",
    "inspect",
    "explain",
    "verify",
    "passes",
    "targets",
)

for _name in COMMANDS:
    import_module(f"qcomp.cli.{_name}_command").register(app)


def main() -> None:
    """Run the command line: exit code 0, 1 for a compile error, 2 for a usage error."""
    try:
        code = app(standalone_mode=False)
    except QcompError as error:
        _say(f"error: {error}")
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        code = _STOPPED
    except Exception as error:
        code = _STOPPED if _was_stopped(error) else _unexpected(error)
    # The command line's own library turns Ctrl-C into this code, without a word.
    if code == _STOPPED:
        _say("stopped; nothing half-written was left behind")
    sys.exit(code if isinstance(code, int) else 0)


def _was_stopped(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind an error: what it interrupts may fail to close what it had open."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def _unexpected(error: Exception) -> int:
    """Report an error that is no QcompError: click's own usage errors, the system's, and faults."""
    show = getattr(error, "show", None)
    if show is not None:
        show()
        return int(getattr(error, "exit_code", 2))
    if isinstance(error, BrokenPipeError):
        return 0
    if isinstance(error, OSError):
        _say(f"error: {error.strerror or error}: {error.filename or ''}".rstrip(": "))
        return 1
    if isinstance(error, MemoryError):
        _say("error: there is not enough memory for this\n  try: a smaller batch or model")
        return 1
    _say(
        f"error: a fault inside qcomp: {type(error).__name__}: {error}\n"
        "  try: run it again with QCOMP_TRACEBACK=1 and report what it prints"
    )
    import os

    if os.environ.get("QCOMP_TRACEBACK"):
        raise error
    return 1


def _say(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    main()
