"""The data a user hands over: calibration samples, evaluation samples, labels, inputs of a run.

One door for all forms: files, dicts, iterables, PyTorch loaders, ONNX Runtime readers, folders of
images. Everything is checked and converted to the model's inputs here, batch by batch, so that what
is behind never meets a wrong name, shape or type.
"""

from qcomp.feeds.batches import Batches, calibration_batches, load_inputs
from qcomp.feeds.inputs import Input, inputs_of
from qcomp.feeds.labels import Evaluation, labels_for
from qcomp.feeds.scores import Score, Scorer, score

__all__ = [
    "Batches",
    "Evaluation",
    "Input",
    "Score",
    "Scorer",
    "calibration_batches",
    "inputs_of",
    "labels_for",
    "load_inputs",
    "score",
]
