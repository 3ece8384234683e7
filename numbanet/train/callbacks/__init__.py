"""What watches and steers a training, with Keras's names: see :class:`Callback`."""

from numbanet.train.callbacks.backup import BackupAndRestore, ModelCheckpoint
from numbanet.train.callbacks.callback import Callback, History, LambdaCallback
from numbanet.train.callbacks.curvature import CurvatureEstimation
from numbanet.train.callbacks.monitors import EarlyStopping, ReduceLROnPlateau, TerminateOnNaN
from numbanet.train.callbacks.writers import CSVLogger, TensorBoard

__all__ = ["BackupAndRestore", "CSVLogger", "Callback", "CurvatureEstimation", "EarlyStopping", "History", "LambdaCallback",
           "ModelCheckpoint", "ReduceLROnPlateau", "TensorBoard", "TerminateOnNaN"]
