"""Runs what was compiled: ONNX Runtime for tensors, a simulator for circuits."""
