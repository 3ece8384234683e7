"""Schedules against PyTorch's, step by step; dictionaries; errors."""

from __future__ import annotations

import json
import warnings

import pytest

import numbanet
from numbanet.errors import UsageError
from numbanet.optim import SGD, Adam, lr_scheduler


def _sequence(L, optimizer):
    return L.SequentialLR(optimizer, [L.LinearLR(optimizer, 0.1, total_iters=5), L.ConstantLR(optimizer, 0.5, 3),
                                      L.CosineAnnealingLR(optimizer, 20)], [5, 12])


def _chain(L, optimizer):
    return L.ChainedScheduler([L.ConstantLR(optimizer, 0.1, 4), L.ExponentialLR(optimizer, 0.9),
                               L.StepLR(optimizer, 7)])


SCHEDULES = {
    "lambda": lambda L, o: L.LambdaLR(o, lambda epoch: 0.95 ** epoch),
    "lambda-per-group": lambda L, o: L.LambdaLR(o, [lambda epoch: 1 / (epoch + 1), lambda epoch: 0.5]),
    "multiplicative": lambda L, o: L.MultiplicativeLR(o, lambda epoch: 0.9),
    "step": lambda L, o: L.StepLR(o, 7, 0.5),
    "multi-step": lambda L, o: L.MultiStepLR(o, [30, 5, 5, 12], 0.5),
    "constant": lambda L, o: L.ConstantLR(o, 0.25, 10),
    "linear": lambda L, o: L.LinearLR(o, 0.2, 0.7, 12),
    "exponential": lambda L, o: L.ExponentialLR(o, 0.93),
    "polynomial": lambda L, o: L.PolynomialLR(o, 30, 2.0),
    "cosine": lambda L, o: L.CosineAnnealingLR(o, 15, 0.001),
    "warm-restarts": lambda L, o: L.CosineAnnealingWarmRestarts(o, 6, 2, 0.002),
    "one-cycle": lambda L, o: L.OneCycleLR(o, 0.3, 51),
    "one-cycle-linear": lambda L, o: L.OneCycleLR(o, [0.3, 0.1], epochs=17, steps_per_epoch=3,
                                                  anneal_strategy="linear"),
    "one-cycle-three-phase": lambda L, o: L.OneCycleLR(o, 0.3, 51, three_phase=True, pct_start=0.4),
    "one-cycle-rates-only": lambda L, o: L.OneCycleLR(o, 0.3, 51, cycle_momentum=False),
    "sequential": _sequence,
    "chained": _chain,
}


def _optimizer(package, name="SGD"):
    a, b = (package.tensor([float(i)], requires_grad=True) for i in (1, 2))
    options = {"momentum": 0.9} if name == "SGD" else {}
    return getattr(package.optim, name)([{"params": [a]}, {"params": [b], "lr": 0.05}], lr=0.1, **options)


def _settings(optimizer):
    return [(g["lr"], g.get("momentum", g.get("betas", (0,))[0])) for g in optimizer.param_groups]


def _history(optimizer, scheduler, steps=50):
    rows = [_settings(optimizer)]
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
        assert scheduler.get_last_lr() == [g["lr"] for g in optimizer.param_groups]
        rows.append(_settings(optimizer))
    return [value for row in rows for group in row for value in group]


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_fifty_steps_agree_with_torch(name, kind):
    torch = pytest.importorskip("torch")
    mine, theirs = _optimizer(numbanet, kind), _optimizer(torch, kind)
    received = _history(mine, SCHEDULES[name](lr_scheduler, mine))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = _history(theirs, SCHEDULES[name](torch.optim.lr_scheduler, theirs))
    assert received == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("options", [
    {}, {"mode": "max", "patience": 1, "factor": 0.5}, {"threshold_mode": "abs", "threshold": 0.05, "cooldown": 2,
                                                        "patience": 2},
    {"min_lr": [0.02, 0.01], "patience": 0, "factor": 0.3}, {"mode": "max", "threshold_mode": "abs", "eps": 0.03,
                                                             "patience": 0}])
def test_plateau_agrees_with_torch(options):
    torch = pytest.importorskip("torch")
    metrics = [1.0, 0.9, 0.9, 0.95, 0.8, 0.8, 0.79999, 0.9, float("nan"), 0.5, 0.6, 0.7, 0.8, 0.9, 0.4] + [0.4] * 30
    mine, theirs = _optimizer(numbanet), _optimizer(torch)
    scheduler = lr_scheduler.ReduceLROnPlateau(mine, **options)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, **options)
    for metric in metrics:
        scheduler.step(metric)
        reference.step(metric)
        assert scheduler.get_last_lr() == pytest.approx([g["lr"] for g in theirs.param_groups], rel=1e-12)


@pytest.mark.parametrize("name", [n for n in SCHEDULES if n != "lambda-per-group"])
def test_going_on_from_a_state_dict_changes_nothing(name):
    optimizer = _optimizer(numbanet)
    scheduler = SCHEDULES[name](lr_scheduler, optimizer)
    _history(optimizer, scheduler, 9)
    state = json.loads(json.dumps([scheduler.state_dict(), optimizer.state_dict()["param_groups"]]))
    expected = _history(optimizer, scheduler, 20)
    other = _optimizer(numbanet)
    again = SCHEDULES[name](lr_scheduler, other)
    other.load_state_dict({"state": {}, "param_groups": state[1]})
    again.load_state_dict(state[0])
    assert _history(other, again, 20) == expected


def test_cosine_goes_on_from_an_epoch():
    torch = pytest.importorskip("torch")
    optimizers = [_optimizer(numbanet), _optimizer(torch)]
    for o in optimizers:
        for group in o.param_groups:
            group["initial_lr"] = group["lr"]
    mine = lr_scheduler.CosineAnnealingLR(optimizers[0], 10, last_epoch=3)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizers[1], 10, last_epoch=3)
    assert mine.get_last_lr() == pytest.approx(theirs.get_last_lr(), rel=1e-12)


def test_warm_up_then_cosine_by_hand():
    optimizer = _optimizer(numbanet)
    _history(optimizer, _sequence(lr_scheduler, optimizer), 12)          # the cosine starts at its epoch 0
    assert [g["lr"] for g in optimizer.param_groups] == [0.1, 0.05]


@pytest.mark.parametrize("make, message", [
    (lambda o: lr_scheduler.OneCycleLR(o, 0.1), "total_steps"),
    (lambda o: lr_scheduler.OneCycleLR(o, 0.1, 0), "total_steps"),
    (lambda o: lr_scheduler.OneCycleLR(o, 0.1, 10, anneal_strategy="cosine"), "anneal_strategy"),
    (lambda o: lr_scheduler.OneCycleLR(o, 0.1, 10, pct_start=1.5), "pct_start"),
    (lambda o: lr_scheduler.OneCycleLR(o, [0.1], 10), "max_lr"),
    (lambda o: lr_scheduler.LinearLR(o, 0.0), "start_factor"),
    (lambda o: lr_scheduler.LinearLR(o, end_factor=2.0), "end_factor"),
    (lambda o: lr_scheduler.ConstantLR(o, 2.0), "factor"),
    (lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 0), "T_0"),
    (lambda o: lr_scheduler.StepLR(o, 3, last_epoch=5), "initial_lr"),
    (lambda o: lr_scheduler.ReduceLROnPlateau(o, factor=1.0), "factor"),
    (lambda o: lr_scheduler.ReduceLROnPlateau(o, mode="lowest"), "mode"),
    (lambda o: lr_scheduler.SequentialLR(o, [lr_scheduler.StepLR(o, 1)], [3]), "milestones"),
    (lambda o: lr_scheduler.ChainedScheduler([lr_scheduler.StepLR(o, 1)], Adam([numbanet.tensor([1.0])])),
     "another optimizer"),
    (lambda o: lr_scheduler.ChainedScheduler([]), "at least one"),
])
def test_bad_arguments(make, message):
    with pytest.raises(UsageError, match=message):
        make(SGD([{"params": [numbanet.tensor([1.0])]}, {"params": [numbanet.tensor([1.0])]}], momentum=0.9))


def test_a_cycle_ends():
    optimizer = _optimizer(numbanet)
    scheduler = lr_scheduler.OneCycleLR(optimizer, 0.1, 3)
    scheduler.step()
    scheduler.step()
    scheduler.step()
    with pytest.raises(UsageError, match="cycle of 3 steps"):
        scheduler.step()
