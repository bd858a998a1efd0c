"""Quantum models of the literature as torch modules: trained, exported and compiled like others."""

from __future__ import annotations

from qcomp.nn.zoo.qcnn import QCNN, qcnn_circuit
from qcomp.nn.zoo.tensor_network import TensorNetworkClassifier, tensor_network_circuit

__all__ = ["QCNN", "TensorNetworkClassifier", "qcnn_circuit", "tensor_network_circuit"]
