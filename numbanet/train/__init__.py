"""Training: the engine, callbacks, metrics, checkpoints, runs."""

from numbanet.train.callbacks import (
    BackupAndRestore,
    Callback,
    CSVLogger,
    CurvatureEstimation,
    EarlyStopping,
    History,
    LambdaCallback,
    ModelCheckpoint,
    ReduceLROnPlateau,
    TensorBoard,
    TerminateOnNaN,
)
from numbanet.train.checkpoint import Checkpoints
from numbanet.train.ema import ExponentialMovingAverage
from numbanet.train.freezing import freeze, freeze_until, parameter_groups, unfreeze
from numbanet.train.metrics import (
    Accuracy,
    CalibrationError,
    ConfusionMatrix,
    F1Score,
    JaccardIndex,
    MeanIoU,
    Metric,
    MetricCollection,
    Precision,
    Recall,
)
from numbanet.train.mixing import CutMix, MixUp
from numbanet.train.trainer import Progress, Trainer

__all__ = ["Accuracy", "BackupAndRestore", "CSVLogger", "CalibrationError", "Callback", "Checkpoints", "ConfusionMatrix",
           "CurvatureEstimation", "CutMix", "EarlyStopping", "ExponentialMovingAverage", "F1Score", "History", "JaccardIndex",
           "LambdaCallback", "MeanIoU", "Metric", "MetricCollection", "MixUp", "ModelCheckpoint", "Precision", "Progress", "Recall",
           "ReduceLROnPlateau", "TensorBoard", "TerminateOnNaN", "Trainer", "freeze", "freeze_until", "parameter_groups", "unfreeze"]
