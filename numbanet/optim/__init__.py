"""Optimisers and learning-rate schedules, with PyTorch's names, defaults and formulas."""

from numbanet.optim import lr_scheduler
from numbanet.optim.adam import Adam, AdamW
from numbanet.optim.levenberg_marquardt import DiagonalLevenbergMarquardt
from numbanet.optim.optimizer import Optimizer
from numbanet.optim.rmsprop import RMSprop
from numbanet.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "DiagonalLevenbergMarquardt", "Optimizer", "RMSprop", "lr_scheduler"]
