"""What a network is judged by, with torchmetrics' names and verbs: ``update(preds, target)``, ``compute()``, ``reset()``."""

from numbanet.train.metrics.calibration import CalibrationError
from numbanet.train.metrics.classification import Accuracy, F1Score, Precision, Recall
from numbanet.train.metrics.confusion import ConfusionMatrix
from numbanet.train.metrics.metric import Metric, MetricCollection
from numbanet.train.metrics.overlap import JaccardIndex, MeanIoU

__all__ = ["Accuracy", "CalibrationError", "ConfusionMatrix", "F1Score", "JaccardIndex", "MeanIoU", "Metric", "MetricCollection",
           "Precision", "Recall"]
