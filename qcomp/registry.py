"""Lazy tables: a name stands for ``module:attribute`` and is imported when it is asked for.

The project's own parts register here; a plugin registers the same way by an entry point in the
group ``qcomp.passes``, ``qcomp.frontends``, ``qcomp.backends``, ``qcomp.targets`` or
``qcomp.providers``. Two parts of one name are an error.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from typing import Any

from qcomp.errors import UsageError, suggest

__all__ = ["GROUPS", "load", "names", "table"]

GROUPS: dict[str, dict[str, str]] = {
    "passes": {
        "canonicalise": "qcomp.passes.graph.canonicalise:Canonicalise",
        "fold-constants": "qcomp.passes.graph.fold_constants:FoldConstants",
        "freeze-defaults": "qcomp.passes.graph.freeze_defaults:FreezeDefaults",
        "inline-functions": "qcomp.passes.graph.inline_functions:InlineFunctions",
        "widen-floats": "qcomp.passes.graph.widen_floats:WidenFloats",
        "take-apart": "qcomp.passes.graph.take_apart:TakeApart",
        "fuse-batch-norm": "qcomp.passes.graph.fuse_batch_norm:FuseBatchNorm",
        "conv-transpose-to-conv": "qcomp.passes.graph.conv_transpose_to_conv:ConvTransposeToConv",
        "cross-layer-equalize": "qcomp.passes.graph.cross_layer_equalize:CrossLayerEqualize",
        "sort-neurons": "qcomp.passes.graph.sort_neurons:SortNeurons",
        "bind-weights": "qcomp.passes.graph.bind_weights:BindWeights",
        "bind-to-slots": "qcomp.passes.graph.bind_to_slots:BindToSlots",
        "encode-image": "qcomp.passes.lower.encode_image:EncodeImage",
        "encode-input": "qcomp.passes.lower.encode_input:EncodeInput",
        "lower-layer": "qcomp.passes.lower.layers.lower_layer:LowerLayer",
        "partition": "qcomp.passes.graph.partition:Partition",
        "measure-sensitivity": "qcomp.passes.allocate.measure_sensitivity:MeasureSensitivity",
        "entropy-sensitivity": "qcomp.passes.allocate.entropy_sensitivity:EntropySensitivity",
        "hessian-sensitivity": "qcomp.passes.allocate.hessian_sensitivity:HessianSensitivity",
        "measure-costs": "qcomp.passes.allocate.measure_costs:MeasureCosts",
        "allocate-bits": "qcomp.passes.allocate.allocate_bits:AllocateBits",
        "select-nodes": "qcomp.passes.quantize.select_nodes:SelectNodes",
        "rotate": "qcomp.passes.graph.rotate:Rotate",
        "learn-rotations": "qcomp.passes.graph.learn_rotations:LearnRotations",
        "smooth-activations": "qcomp.passes.calibrate.smooth_activations:SmoothActivations",
        "awq": "qcomp.passes.calibrate.awq:Awq",
        "smooth-outliers": "qcomp.passes.calibrate.smooth_outliers:SmoothOutliers",
        "smooth-attention": "qcomp.passes.calibrate.smooth_attention:SmoothAttention",
        "qllm": "qcomp.passes.calibrate.qllm:Qllm",
        "absorb-bias": "qcomp.passes.calibrate.absorb_bias:AbsorbBias",
        "record-parameters": "qcomp.passes.calibrate.record_parameters:RecordParameters",
        "generate-data": "qcomp.passes.calibrate.generate_data:GenerateData",
        "calibrate": "qcomp.passes.calibrate.calibrate:Calibrate",
        "choose-schemes": "qcomp.passes.calibrate.choose_schemes:ChooseSchemes",
        "optimize-scales": "qcomp.passes.calibrate.optimize_scales:OptimizeScales",
        "quantize-embeddings": "qcomp.passes.quantize.quantize_embeddings:QuantizeEmbeddings",
        "quantize-lstm": "qcomp.passes.quantize.quantize_lstm:QuantizeLstm",
        "learn-rounding": "qcomp.passes.quantize.learn_rounding:LearnRounding",
        "quantize-static": "qcomp.passes.quantize.quantize_static:QuantizeStatic",
        "correct-bias": "qcomp.passes.quantize.correct_bias:CorrectBias",
        "quantize-dynamic": "qcomp.passes.quantize.quantize_dynamic:QuantizeDynamic",
        "quantize-residual": "qcomp.passes.quantize.quantize_residual:QuantizeResidual",
        "gptq": "qcomp.passes.quantize.gptq:Gptq",
        "dpq": "qcomp.passes.quantize.dpq:Dpq",
        "gptaq": "qcomp.passes.quantize.gptaq:Gptaq",
        "rsq": "qcomp.passes.quantize.rsq:Rsq",
        "qoq": "qcomp.passes.quantize.qoq:Qoq",
        "choose-method": "qcomp.passes.quantize.choose_method:ChooseMethod",
        "gpfq": "qcomp.passes.quantize.gpfq:Gpfq",
        "quantize-tokens": "qcomp.passes.quantize.quantize_tokens:QuantizeTokens",
        "quantize-fp8": "qcomp.passes.quantize.quantize_fp8:QuantizeFp8",
        "nupes": "qcomp.passes.quantize.nupes:Nupes",
        "jlcm": "qcomp.passes.quantize.jlcm:Jlcm",
        "quantize-cache": "qcomp.passes.quantize.quantize_cache:QuantizeCache",
        "dqa": "qcomp.passes.quantize.dqa:Dqa",
        "quantize-weights": "qcomp.passes.quantize.quantize_weights:QuantizeWeights",
        "store-weights": "qcomp.passes.quantize.store_weights:StoreWeights",
        "sum-residuals": "qcomp.passes.graph.sum_residuals:SumResiduals",
        "restore-halves": "qcomp.passes.graph.restore_halves:RestoreHalves",
        "halve-constants": "qcomp.passes.quantize.halve_constants:HalveConstants",
        "tie-weights": "qcomp.passes.quantize.tie_weights:TieWeights",
        "quantization-error": "qcomp.passes.analyze.quantization_error:MeasureQuantizationError",
        "merge-rotations": "qcomp.passes.reduce.merge_rotations:MergeRotations",
        "merge-pauli-rotations": "qcomp.passes.reduce.merge_pauli_rotations:MergePauliRotations",
        "cancel-inverses": "qcomp.passes.reduce.cancel_inverses:CancelInverses",
        "fuse-one-qubit": "qcomp.passes.reduce.fuse_one_qubit:FuseOneQubit",
        "consolidate-two-qubit": "qcomp.passes.synthesize.two_qubit:ConsolidateTwoQubit",
        "resynthesize-cliffords": "qcomp.passes.synthesize.clifford_regions:ResynthesizeCliffords",
        "resynthesize-phase-polynomials": "qcomp.passes.synthesize.phase_polynomial:"
        "ResynthesizePhasePolynomials",
        "resynthesize-pauli-rotations": "qcomp.passes.synthesize.pauli_rotations:"
        "ResynthesizePauliRotations",
        "drop-dead-gates": "qcomp.passes.reduce.drop_dead_gates:DropDeadGates",
        "assume-zero": "qcomp.passes.reduce.assume_zero:AssumeZero",
        "absorb-swaps": "qcomp.passes.reduce.absorb_swaps:AbsorbSwaps",
        "search": "qcomp.passes.reduce.search:Search",
        "resynthesize-windows": "qcomp.passes.synthesize.windows:ResynthesizeWindows",
        "resynthesize-pauli-networks": "qcomp.passes.synthesize.pauli_networks:"
        "ResynthesizePauliNetworks",
        "reduce-t-count": "qcomp.passes.synthesize.t_count.reduce_t_count:ReduceTCount",
        "allocate-angles": "qcomp.passes.allocate.angle_allocate:AllocateAngles",
        "synthesize-rotations": "qcomp.passes.synthesize.clifford_t.synthesize_rotations:"
        "SynthesizeRotations",
        "evolve": "qcomp.passes.synthesize.evolution.evolve:Evolve",
        "prepare-state": "qcomp.passes.synthesize.state.prepare_state:PrepareState",
        "synthesize-unitary": "qcomp.passes.synthesize.unitary.synthesize_unitary:"
        "SynthesizeUnitary",
        "to-basis": "qcomp.passes.map.to_basis:ToBasis",
        "merge-quarter-turns": "qcomp.passes.map.merge_quarter_turns:MergeQuarterTurns",
        "collect-rzz": "qcomp.passes.map.collect_rzz:CollectRzz",
        "map-to-device": "qcomp.passes.map.map_to_device:MapToDevice",
        "orient-gates": "qcomp.passes.map.orient_gates:OrientGates",
        "push-virtual-z": "qcomp.passes.map.push_virtual_z:PushVirtualZ",
        "insert-dynamical-decoupling": "qcomp.passes.mitigate.insert_dynamical_decoupling:"
        "InsertDynamicalDecoupling",
        "success-probability": "qcomp.passes.analyze.success_probability:MeasureSuccess",
        "fold-gates": "qcomp.passes.mitigate.fold_gates:FoldGates",
    },
    "frontends": {
        "openqasm": "qcomp.frontends.openqasm.reader:OpenQasmFrontend",
        "arrays": "qcomp.frontends.arrays:ArrayFrontend",
        "observables": "qcomp.frontends.observables:ObservableFrontend",
        "onnx": "qcomp.frontends.onnx_model:OnnxFrontend",
        "torch": "qcomp.frontends.torch_model:TorchFrontend",
        "qiskit": "qcomp.frontends.qiskit_circuit:QiskitFrontend",
        "pytket": "qcomp.frontends.pytket_circuit:PytketFrontend",
        "cirq": "qcomp.frontends.cirq_circuit:CirqFrontend",
        "pennylane": "qcomp.frontends.pennylane_tape:PennylaneFrontend",
    },
    "backends": {
        "openqasm3": "qcomp.backends.openqasm3.backend:OpenQasm3Backend",
        "onnx": "qcomp.backends.onnx_file:OnnxBackend",
        "onnx_int": "qcomp.backends.onnx_int:OnnxIntBackend",
        "bundle": "qcomp.backends.bundle:BundleBackend",
    },
    "targets": {},
    "providers": {
        "local": "qcomp.submit.local:LocalProvider",
        "ibm": "qcomp.submit.ibm:IbmProvider",
        "braket": "qcomp.submit.braket:BraketProvider",
    },
    "services": {
        "draw": "qcomp.report.draw:draw",
        "write-qasm": "qcomp.backends.openqasm3.writer:write_text",
        "write-qasm-bytes": "qcomp.backends.openqasm3.writer:write_bytes",
        "qasm-profiles": "qcomp.backends.openqasm3.profiles:PROFILES",
        "write-qasm-batch": "qcomp.backends.openqasm3.batch:write_batch",
        "read-qasm": "qcomp.frontends.openqasm.reader:read_text",
        "to-qiskit": "qcomp.backends.qiskit_circuit:to_qiskit",
        "from-qiskit": "qcomp.frontends.qiskit_circuit:from_qiskit",
        "to-pytket": "qcomp.backends.pytket_circuit:to_pytket",
        "from-pytket": "qcomp.frontends.pytket_circuit:from_pytket",
        "to-cirq": "qcomp.backends.cirq_circuit:to_cirq",
        "from-cirq": "qcomp.frontends.cirq_circuit:from_cirq",
        "in-words": "qcomp.passes.synthesize.clifford_t.row_words:in_words",
        "bound-in-words": "qcomp.passes.synthesize.clifford_t.row_words:bound_in_words",
        "row-t-counts": "qcomp.passes.synthesize.clifford_t.row_words:row_t_counts",
        "row-keys": "qcomp.passes.synthesize.clifford_t.row_words:row_keys",
        "from-samples": "qcomp.submit.direct:from_samples",
        "from-ibm": "qcomp.submit.direct:from_ibm",
        "provider-sampler": "qcomp.submit.direct:provider_sampler",
        "save-program": "qcomp.backends.onnx_file:save_program",
        "torch-translations": "qcomp.nn.onnx_export:translation_table",
        "remember-circuit": "qcomp.nn.op:remember_circuit",
        "to-pennylane": "qcomp.backends.pennylane_tape:to_pennylane",
        "from-pennylane": "qcomp.frontends.pennylane_tape:from_pennylane",
        "capture-module": "qcomp.frontends.hybrid_layers:capture_module",
        "feature-map": "qcomp.frontends.parameter_trees:read_feature_map",
        "kernel-classifier": "qcomp.nn.kernel_classifier:KernelClassifier",
        "captured-connector": "qcomp.nn.connector:CapturedConnector",
    },
}
"""Group -> name -> "module:attribute"; ``services`` are functions that lower layers call up to."""

_SINGULAR = {
    "passes": "pass",
    "frontends": "frontend",
    "backends": "backend",
    "targets": "target",
    "providers": "provider",
}
PLUGIN_GROUPS = ("passes", "frontends", "backends", "targets", "providers")


@functools.cache
def table(group: str) -> Mapping[str, str]:
    """Return name -> "module:attribute" of a group, plugins included.

    Raises:
        UsageError: If a plugin takes a name that is taken.
    """
    known = dict(GROUPS[group])
    if group in PLUGIN_GROUPS:
        from importlib.metadata import entry_points

        for point in entry_points(group=f"qcomp.{group}"):
            if known.setdefault(point.name, point.value) != point.value:
                raise UsageError(
                    f"two {group} are named '{point.name}': {known[point.name]} and {point.value}",
                    hint="rename or uninstall one of the two packages",
                )
    return known


def names(group: str) -> tuple[str, ...]:
    """Return the names of a group, the project's own in order, then the plugins'."""
    return tuple(table(group))


def load(group: str, name: str) -> Any:  # noqa: ANN401  what is loaded is of any type
    """Import and return what a name stands for.

    Raises:
        UsageError: If the name is unknown or its module cannot be imported.
    """
    known = table(group)
    if name not in known:
        raise UsageError(
            f"there is no {_SINGULAR.get(group, group)} named '{name}'",
            hint=suggest(name, known),
        )
    module_name, _, attribute = known[name].partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing.startswith("qcomp"):
            raise
        raise UsageError(
            f"'{name}' needs the package '{missing}', which is not installed",
            hint=f"pip install {missing.partition('.')[0]}",
        ) from error
