"""Telling an optimiser how much the loss bends."""

from __future__ import annotations

import numpy as np

from numbanet.data import DataLoader
from numbanet.errors import UsageError
from numbanet.optim import DiagonalLevenbergMarquardt
from numbanet.optim.levenberg_marquardt import gauss_newton_diagonal, probe_logits
from numbanet.train.callbacks.callback import Callback
from numbanet.train.steps import first

EARLY = frozenset((30, 100, 300, 600, 1000, 2000, 4000))     # batches of the first epoch, in which weights move far from where they began


class CurvatureEstimation(Callback):
    """Estimates the curvatures of :class:`~numbanet.optim.DiagonalLevenbergMarquardt` anew: before each epoch, and often in the first.

    A model may have a method ``curvature_probe(x, generator)``, which says how its loss bends (see
    :func:`~numbanet.optim.levenberg_marquardt.gauss_newton_diagonal`); of others it is cross-entropy of their logits.

    Parameters
    ----------
    samples : int
        Of the training data, that each estimate looks at; the paper takes 500.
    seed : int
        Of the samples, and of the random numbers.
    """

    def __init__(self, samples: int = 500, seed: int = 0):
        self.samples, self.seed = samples, seed

    def on_epoch_begin(self, epoch, logs=None):
        if self.trainer.progress.batch == 0:         # a run that goes on within an epoch has what it had
            self._estimate(epoch, 0)

    def on_train_batch_begin(self, batch, logs=None):
        if batch in EARLY and self.trainer.progress.epoch == 0:
            self._estimate(0, batch)

    def _estimate(self, epoch: int, batch: int) -> None:
        optimizer, loader = self.trainer.optimizer, self.trainer.train_loader
        if not isinstance(optimizer, DiagonalLevenbergMarquardt):
            raise UsageError(f"CurvatureEstimation: expected the optimiser DiagonalLevenbergMarquardt, received {type(optimizer).__name__}")
        if not isinstance(loader, DataLoader):
            raise UsageError(f"CurvatureEstimation: expected a DataLoader, whose data set it draws samples from, received "
                             f"{type(loader).__name__}")
        generator = np.random.default_rng((self.seed, epoch, batch))
        drawn = DataLoader(loader.dataset, min(self.samples, len(loader.dataset)), shuffle=True, seed=int(generator.integers(1 << 31)),
                           on_error=loader.on_error)
        x, parameters = next(iter(drawn))[0].to(self.trainer.device), [p for p in self.model.parameters() if p.requires_grad]
        probe = getattr(self.model, "curvature_probe", None) or (lambda x, generator: probe_logits(first(self.model(x)), generator))
        was_training = self.model.training
        self.model.eval()                            # single samples: no statistics of batches, no dropout
        try:
            optimizer.set_curvature(zip(parameters, gauss_newton_diagonal(probe, parameters, x, generator)))
        finally:
            self.model.train(was_training)
