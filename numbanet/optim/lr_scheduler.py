"""Learning-rate schedules. `step()` is called once an epoch, or once a batch where the schedule counts batches.

Most schedules multiply the current rate, so that several can be chained. `epoch` counts calls of `step`, from 0 at the
start; base is the group's rate before any schedule.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from math import inf

from numbanet.errors import UsageError

__all__ = ["ChainedScheduler", "ConstantLR", "CosineAnnealingLR", "CosineAnnealingWarmRestarts", "ExponentialLR",
           "LRScheduler", "LambdaLR", "LinearLR", "MultiStepLR", "MultiplicativeLR", "OneCycleLR", "PolynomialLR",
           "ReduceLROnPlateau", "SequentialLR", "StepLR"]


class LRScheduler:
    """Base of the schedules. A subclass gives ``get_lr()``: the rates of all groups at `last_epoch`.

    Parameters
    ----------
    optimizer : Optimizer
    last_epoch : int
        The epoch to go on from; -1 starts.
    """

    def __init__(self, optimizer, last_epoch: int = -1):
        self.optimizer = optimizer
        for position, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise UsageError(f"{type(self).__name__}: last_epoch={last_epoch} continues a schedule, but parameter "
                                 f"group {position} has no initial_lr; load the optimiser's state first, or set it")
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._going_on = last_epoch != -1       # the group's rate is that of this epoch already
        self.step()
        self._going_on = False

    def get_lr(self) -> list[float]:
        raise NotImplementedError(f"{type(self).__name__} implements get_lr()")

    def get_last_lr(self) -> list[float]:
        """The rates that the last step set, one a group."""
        return self._last_lr

    def step(self) -> None:
        """Go on to the next epoch (or batch)."""
        self.last_epoch += 1
        self._set(self.get_lr())

    def restart(self) -> None:
        """Go to epoch 0, from the base rates."""
        for group, base in zip(self.optimizer.param_groups, self.base_lrs):
            group["lr"] = base
        self.last_epoch = 0
        self._set(self.get_lr())

    def _set(self, rates) -> None:
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def _times(self, factor: float) -> list[float]:
        return [group["lr"] * factor for group in self.optimizer.param_groups]

    def state_dict(self) -> dict:
        """Everything but the optimiser and functions."""
        return {k: v for k, v in self.__dict__.items() if k != "optimizer" and not callable(v)}

    def load_state_dict(self, state_dict: dict) -> None:
        """Restore what :meth:`state_dict` gave. The optimiser's own state holds the current rates."""
        self.__dict__.update(state_dict)


class LambdaLR(LRScheduler):
    """base * lr_lambda(epoch); one function, or one a group."""

    def __init__(self, optimizer, lr_lambda, last_epoch=-1):
        self._lambdas = _per_group("LambdaLR", "lr_lambda", lr_lambda, optimizer)
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        return [base * function(self.last_epoch) for base, function in zip(self.base_lrs, self._lambdas)]

    def state_dict(self):
        return {k: v for k, v in super().state_dict().items() if k != "_lambdas"}


class MultiplicativeLR(LambdaLR):
    """The current rate times lr_lambda(epoch), from epoch 1 on."""

    def get_lr(self):
        if self.last_epoch == 0:
            return self._times(1.0)
        return [rate * function(self.last_epoch) for rate, function in zip(self._times(1.0), self._lambdas)]


class StepLR(LRScheduler):
    """Times gamma every step_size epochs."""

    def __init__(self, optimizer, step_size, gamma=0.1, last_epoch=-1):
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        return self._times(self.gamma if self.last_epoch and self.last_epoch % self.step_size == 0 else 1.0)


class MultiStepLR(LRScheduler):
    """Times gamma at each milestone."""

    def __init__(self, optimizer, milestones, gamma=0.1, last_epoch=-1):
        self.milestones, self.gamma = sorted(milestones), gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        return self._times(self.gamma ** self.milestones.count(self.last_epoch))


class ExponentialLR(LRScheduler):
    """Times gamma every epoch."""

    def __init__(self, optimizer, gamma, last_epoch=-1):
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        return self._times(self.gamma if self.last_epoch and not self._going_on else 1.0)


class ConstantLR(LRScheduler):
    """base * factor until epoch total_iters, then base."""

    def __init__(self, optimizer, factor=1.0 / 3, total_iters=5, last_epoch=-1):
        if not 0 <= factor <= 1:
            raise UsageError(f"ConstantLR: factor expects a number from 0 to 1, received {factor}")
        self.factor, self.total_iters = factor, total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        if self.last_epoch == 0:
            return self._times(self.factor)
        return self._times(1.0 / self.factor if self.last_epoch == self.total_iters else 1.0)


class LinearLR(LRScheduler):
    """base times a factor that goes linearly from start_factor to end_factor in total_iters epochs: a warm-up."""

    def __init__(self, optimizer, start_factor=1.0 / 3, end_factor=1.0, total_iters=5, last_epoch=-1):
        if not 0 < start_factor <= 1:
            raise UsageError(f"LinearLR: start_factor expects a number above 0, at most 1, received {start_factor}")
        if not 0 <= end_factor <= 1:
            raise UsageError(f"LinearLR: end_factor expects a number from 0 to 1, received {end_factor}")
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        if self.last_epoch == 0:
            return self._times(self.start_factor)
        if self.last_epoch > self.total_iters or self._going_on:
            return self._times(1.0)
        rise = self.end_factor - self.start_factor
        return self._times(1.0 + rise / (self.total_iters * self.start_factor + (self.last_epoch - 1) * rise))


class PolynomialLR(LRScheduler):
    """base * (1 - epoch / total_iters)^power, then 0."""

    def __init__(self, optimizer, total_iters=5, power=1.0, last_epoch=-1):
        self.total_iters, self.power = total_iters, power
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        if self.last_epoch == 0 or self.last_epoch > self.total_iters or self._going_on:
            return self._times(1.0)
        before, now = 1.0 - (self.last_epoch - 1) / self.total_iters, 1.0 - self.last_epoch / self.total_iters
        return self._times((now / before) ** self.power)


class CosineAnnealingLR(LRScheduler):
    """Half a cosine from base to eta_min in T_max epochs, and back (Loshchilov and Hutter, 2017, without restarts)."""

    def __init__(self, optimizer, T_max, eta_min=0.0, last_epoch=-1):
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        epoch, T = self.last_epoch, self.T_max
        if epoch == 0 or self._going_on:
            return self._times(1.0)
        if (epoch - 1 - T) % (2 * T) == 0:      # the rate is eta_min: nothing to multiply
            return [group["lr"] + (base - self.eta_min) * (1 - math.cos(math.pi / T)) / 2
                    for base, group in zip(self.base_lrs, self.optimizer.param_groups)]
        ratio = (1 + math.cos(math.pi * epoch / T)) / (1 + math.cos(math.pi * (epoch - 1) / T))
        return [ratio * (group["lr"] - self.eta_min) + self.eta_min for group in self.optimizer.param_groups]


class CosineAnnealingWarmRestarts(LRScheduler):
    """Half a cosine from base to eta_min in T_0 epochs, again and again, each T_mult times as long as the one before
    (Loshchilov and Hutter, 2017)."""

    def __init__(self, optimizer, T_0, T_mult=1, eta_min=0.0, last_epoch=-1):
        for name, value in (("T_0", T_0), ("T_mult", T_mult)):
            if value < 1 or not isinstance(value, int):
                raise UsageError(f"CosineAnnealingWarmRestarts: {name} expects an integer of at least 1, "
                                 f"received {value}")
        self.T_0, self.T_mult, self.eta_min = T_0, T_mult, eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        begin, length = 0, self.T_0
        while self.last_epoch >= begin + length:
            begin, length = begin + length, length * self.T_mult
        self.T_cur, self.T_i = self.last_epoch - begin, length
        return [self.eta_min + (base - self.eta_min) * (1 + math.cos(math.pi * self.T_cur / length)) / 2
                for base in self.base_lrs]


class OneCycleLR(LRScheduler):
    """Up to max_lr and down to almost 0 in one cycle, momentum the other way; a step a batch (Smith and Topin, 2018).

    Parameters
    ----------
    optimizer : Optimizer
    max_lr : float, or one a group
    total_steps : int
        Or `epochs` and `steps_per_epoch`.
    pct_start : float
        Share of the cycle that goes up.
    anneal_strategy : "cos" or "linear"
    cycle_momentum : bool
        Move momentum (SGD, RMSprop) or beta1 (Adam) between max_momentum and base_momentum.
    div_factor : float
        The first rate is max_lr / div_factor.
    final_div_factor : float
        The last rate is the first / final_div_factor.
    three_phase : bool
        Down to the first rate as fast as up, and only then to the last.
    """

    def __init__(self, optimizer, max_lr, total_steps=None, epochs=None, steps_per_epoch=None, pct_start=0.3,
                 anneal_strategy="cos", cycle_momentum=True, base_momentum=0.85, max_momentum=0.95, div_factor=25.0,
                 final_div_factor=1e4, three_phase=False, last_epoch=-1):
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise UsageError("OneCycleLR: expected total_steps, or epochs and steps_per_epoch")
            total_steps = epochs * steps_per_epoch
        if not (isinstance(total_steps, int) and total_steps > 0):
            raise UsageError(f"OneCycleLR: total_steps expects an integer above 0, received {total_steps}")
        if not 0 <= pct_start <= 1:
            raise UsageError(f"OneCycleLR: pct_start expects a number from 0 to 1, received {pct_start}")
        if anneal_strategy not in ("cos", "linear"):
            raise UsageError(f"OneCycleLR: anneal_strategy expects 'cos' or 'linear', received {anneal_strategy!r}")
        self.total_steps, self.anneal_strategy, self.cycle_momentum = total_steps, anneal_strategy, cycle_momentum
        top = pct_start * total_steps - 1
        # (last step of the phase, rate and momentum at its ends)
        self._phases = [(top, "initial_lr", "max_lr", "max_momentum", "base_momentum")]
        if three_phase:
            self._phases.append((2 * pct_start * total_steps - 2, "max_lr", "initial_lr", "base_momentum",
                                 "max_momentum"))
            self._phases.append((total_steps - 1, "initial_lr", "min_lr", "max_momentum", "max_momentum"))
        else:
            self._phases.append((total_steps - 1, "max_lr", "min_lr", "base_momentum", "max_momentum"))
        if last_epoch == -1:
            self._prepare(optimizer, max_lr, div_factor, final_div_factor, base_momentum, max_momentum)
        super().__init__(optimizer, last_epoch)

    def _prepare(self, optimizer, max_lr, div_factor, final_div_factor, base_momentum, max_momentum):
        rates = _per_group("OneCycleLR", "max_lr", max_lr, optimizer)
        lows = _per_group("OneCycleLR", "base_momentum", base_momentum, optimizer)
        highs = _per_group("OneCycleLR", "max_momentum", max_momentum, optimizer)
        if self.cycle_momentum and not ({"momentum", "betas"} & set(optimizer.defaults)):
            raise UsageError(f"OneCycleLR: {type(optimizer).__name__} has neither momentum nor betas; pass "
                             "cycle_momentum=False")
        for group, rate, low, high in zip(optimizer.param_groups, rates, lows, highs):
            first = rate / div_factor
            group.update(initial_lr=first, max_lr=rate, min_lr=first / final_div_factor)
            if self.cycle_momentum:
                group.update(base_momentum=low, max_momentum=high)

    def get_lr(self):
        if self.last_epoch > self.total_steps:          # as in PyTorch, a step after the last batch is allowed
            raise UsageError(f"OneCycleLR: step {self.last_epoch} of a cycle of {self.total_steps} steps; give "
                             "total_steps the number of all batches")
        position = sum(self.last_epoch > end for end, *_ in self._phases[:-1])
        end, rate0, rate1, momentum0, momentum1 = self._phases[position]
        begin = self._phases[position - 1][0] if position else 0.0
        share = (self.last_epoch - begin) / (end - begin)
        for group in self.optimizer.param_groups if self.cycle_momentum else ():
            momentum = self._between(group[momentum0], group[momentum1], share)
            if "betas" in group:
                group["betas"] = (momentum, *group["betas"][1:])
            else:
                group["momentum"] = momentum
        return [self._between(group[rate0], group[rate1], share) for group in self.optimizer.param_groups]

    def _between(self, start, end, share):
        if self.anneal_strategy == "cos":
            return end + (start - end) / 2.0 * (math.cos(math.pi * share) + 1)
        return (end - start) * share + start


class SequentialLR(LRScheduler):
    """One schedule after the other: each ends at its milestone, where the next starts at its epoch 0."""

    def __init__(self, optimizer, schedulers, milestones, last_epoch=-1):
        if len(milestones) != len(schedulers) - 1:
            raise UsageError(f"SequentialLR: expected {len(schedulers) - 1} milestones for {len(schedulers)} "
                             f"schedulers, received {len(milestones)}")
        _check_same_optimizer("SequentialLR", schedulers, optimizer)
        self.optimizer, self._milestones, self._schedulers = optimizer, list(milestones), list(schedulers)
        self.last_epoch = last_epoch + 1
        self._schedulers[0].restart()           # their constructors have each taken a first step
        self._last_lr = self._schedulers[0].get_last_lr()

    def step(self):
        self.last_epoch += 1
        position = bisect_right(self._milestones, self.last_epoch)
        scheduler = self._schedulers[position]
        if position and self._milestones[position - 1] == self.last_epoch:
            scheduler.restart()
        else:
            scheduler.step()
        self._last_lr = scheduler.get_last_lr()

    def restart(self):
        self.last_epoch = 0
        self._schedulers[0].restart()
        self._last_lr = self._schedulers[0].get_last_lr()

    def state_dict(self):
        return super().state_dict() | {"_schedulers": [s.state_dict() for s in self._schedulers]}

    def load_state_dict(self, state_dict):
        _load_nested(self, state_dict)


class ChainedScheduler(LRScheduler):
    """Several schedules at once: their factors multiply."""

    def __init__(self, schedulers, optimizer=None):
        if not schedulers:
            raise UsageError("ChainedScheduler: expected at least one scheduler")
        optimizer = schedulers[0].optimizer if optimizer is None else optimizer
        _check_same_optimizer("ChainedScheduler", schedulers, optimizer)
        self.optimizer, self._schedulers = optimizer, list(schedulers)
        self._last_lr = self._schedulers[-1].get_last_lr()

    def step(self):
        for scheduler in self._schedulers:
            scheduler.step()
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def restart(self):
        raise UsageError("ChainedScheduler: cannot start again inside a SequentialLR; chain the sequences instead")

    def state_dict(self):
        return super().state_dict() | {"_schedulers": [s.state_dict() for s in self._schedulers]}

    def load_state_dict(self, state_dict):
        _load_nested(self, state_dict)


class ReduceLROnPlateau(LRScheduler):
    """Times factor when a metric has not improved for `patience` epochs; ``step(metric)``.

    Parameters
    ----------
    optimizer : Optimizer
    mode : "min" or "max"
        Whether the metric should fall or rise.
    factor : float below 1
    patience : int
        Epochs without improvement that are tolerated.
    threshold, threshold_mode : float, "rel" or "abs"
        What counts as an improvement.
    cooldown : int
        Epochs after a reduction in which none are counted.
    min_lr : float, or one a group
    eps : float
        Smaller reductions are not made.
    """

    def __init__(self, optimizer, mode="min", factor=0.1, patience=10, threshold=1e-4, threshold_mode="rel", cooldown=0,
                 min_lr=0.0, eps=1e-8):
        if factor >= 1.0:
            raise UsageError(f"ReduceLROnPlateau: factor expects a number below 1, received {factor}")
        if mode not in ("min", "max") or threshold_mode not in ("rel", "abs"):
            raise UsageError("ReduceLROnPlateau: expected mode 'min' or 'max' and threshold_mode 'rel' or 'abs', "
                             f"received {mode!r} and {threshold_mode!r}")
        self.optimizer, self.mode, self.factor, self.patience = optimizer, mode, factor, patience
        self.threshold, self.threshold_mode, self.cooldown, self.eps = threshold, threshold_mode, cooldown, eps
        self.min_lrs = _per_group("ReduceLROnPlateau", "min_lr", min_lr, optimizer)
        self.best, self.num_bad_epochs, self.cooldown_counter, self.last_epoch = inf if mode == "min" else -inf, 0, 0, 0
        self._last_lr = [group["lr"] for group in optimizer.param_groups]

    def step(self, metrics) -> None:
        """Look at the metric of the epoch that ended; NaN is no improvement."""
        current = float(metrics)
        self.last_epoch += 1
        if self._is_better(current):
            self.best, self.num_bad_epochs = current, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            for group, lowest in zip(self.optimizer.param_groups, self.min_lrs):
                rate = max(group["lr"] * self.factor, lowest)
                if group["lr"] - rate > self.eps:
                    group["lr"] = rate
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def restart(self):
        raise UsageError("ReduceLROnPlateau: it needs a metric at each step and cannot be part of a SequentialLR")

    def _is_better(self, current: float) -> bool:
        sign = -1.0 if self.mode == "min" else 1.0
        if self.threshold_mode == "abs":
            bound = self.best + sign * self.threshold
        else:
            bound = self.best * (1.0 + sign * self.threshold)
        return current < bound if self.mode == "min" else current > bound


def _per_group(scheduler: str, name: str, value, optimizer) -> list:
    groups = len(optimizer.param_groups)
    if not isinstance(value, (list, tuple)):
        return [value] * groups
    if len(value) != groups:
        raise UsageError(f"{scheduler}: {name} expects one value, or {groups} for the {groups} parameter groups, "
                         f"received {len(value)}")
    return list(value)


def _check_same_optimizer(name: str, schedulers, optimizer) -> None:
    for position, scheduler in enumerate(schedulers):
        if scheduler.optimizer is not optimizer:
            raise UsageError(f"{name}: schedulers[{position}] belongs to another optimizer")


def _load_nested(scheduler, state_dict: dict) -> None:
    for inner, state in zip(scheduler._schedulers, state_dict["_schedulers"], strict=True):
        inner.load_state_dict(state)
    scheduler.__dict__.update({k: v for k, v in state_dict.items() if k != "_schedulers"})
