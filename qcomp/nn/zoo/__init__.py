"""Quantum models of the literature as torch modules: trained, exported and compiled like others."""

from __future__ import annotations

from qcomp.nn.zoo.qcnn import QCNN, qcnn_circuit

__all__ = ["QCNN", "qcnn_circuit"]
