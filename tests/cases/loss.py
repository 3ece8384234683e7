"""Cases of losses."""

import numpy as np

import numbanet.ops.loss as loss
from tests.cases.case import OperationCase, PrimitiveCase, channels_last, floats, strided


def _classification(label, function, shape, weighted=False, **options):
    classes = shape[1]

    def inputs(rng):
        target = rng.integers(0, classes, (shape[0], *shape[2:]))
        if "ignore_index" in options:
            target.reshape(-1)[::3] = options["ignore_index"]
        return floats(rng, *shape, dtype=float), target

    def ours(x, target):
        from numbanet import tensor
        weight = tensor(np.arange(1, classes + 1) / classes, dtype=x.dtype, device=x.device) if weighted else None
        return getattr(loss, function)(x, target, weight, **options)

    def torchs(x, target):
        import torch
        weight = torch.arange(1, classes + 1, dtype=x.dtype) / classes if weighted else None
        return getattr(torch.nn.functional, function)(x, target, weight, **options)
    operation = loss.SoftmaxCrossEntropy if function == "cross_entropy" else loss.NLLLoss
    return OperationCase(f"{function}-{label}", (operation,), ours, inputs, torchs)


def _pair(label, function, probabilities=False, fixed=False, **options):
    """`fixed`: the target is a constant without gradient; otherwise it is differentiated, too."""
    def inputs(rng):
        x, t = floats(rng, 3, 5, dtype=float), floats(rng, 3, 5, dtype=float)
        x = 1 / (1 + np.exp(-x)) if function == "binary_cross_entropy" else x
        t = 1 / (1 + np.exp(-t)) if probabilities else t
        return (x,) if fixed else (x, t)
    constant = np.random.default_rng(5).random((3, 5))

    def ours(x, t=None):
        from numbanet import tensor
        t = tensor(constant, dtype=x.dtype, device=x.device) if fixed else t
        return getattr(loss, function)(x, t, **options)

    def torchs(x, t=None):
        import torch
        return getattr(torch.nn.functional, function)(x, torch.tensor(constant) if fixed else t, **options)
    return OperationCase(f"{function}-{label}", (loss.ElementwiseLoss,) if fixed or not probabilities else (), ours,
                         inputs, torchs)


OPERATION_CASES = [
    _classification("mean", "cross_entropy", (5, 4)),
    _classification("sum-weighted", "cross_entropy", (5, 4), True, reduction="sum"),
    _classification("none-ignored", "cross_entropy", (5, 4), reduction="none", ignore_index=2),
    _classification("maps-smoothed", "cross_entropy", (2, 3, 4, 3), True, label_smoothing=0.2, ignore_index=-1),
    _classification("smoothed-none", "cross_entropy", (3, 20), label_smoothing=0.1, reduction="none"),
    _classification("mean-weighted", "nll_loss", (5, 4), True, ignore_index=1),
    _classification("maps-none", "nll_loss", (2, 3, 4), reduction="none"),
    _pair("mean", "mse_loss"),
    _pair("none", "mse_loss", reduction="none"),
    _pair("sum", "l1_loss", reduction="sum"),
    _pair("beta", "smooth_l1_loss", beta=0.7),
    _pair("beta-0", "smooth_l1_loss", beta=0.0),
    _pair("delta", "huber_loss", delta=0.6),
    _pair("mean", "binary_cross_entropy", fixed=True),
    _pair("mean", "binary_cross_entropy_with_logits", fixed=True),
    _pair("batchmean", "kl_div", fixed=True, reduction="batchmean"),
    _pair("log-target", "kl_div", fixed=True, log_target=True),
    _pair("target-gradient", "binary_cross_entropy", True),
    _pair("target-gradient", "binary_cross_entropy_with_logits", True),
    _pair("target-gradient", "kl_div", True),
    _pair("log-target-gradient", "kl_div", True, log_target=True),
]


def _labels(rng, classes, *shape, ignore=None):
    target = rng.integers(0, classes, shape)
    if ignore is not None:
        target.reshape(-1)[::4] = ignore
    return target


def _cross_entropy(label, shape, smoothing=0.0, reduction="mean", weighted=True, layout=lambda x: x):
    def forward(rng):
        weight = rng.random(shape[1], np.float32) if weighted else None
        target = _labels(rng, shape[1], shape[0], *shape[2:], ignore=-7)
        return layout(3 * floats(rng, *shape)), target, weight, -7, smoothing, reduction

    def backward(rng):
        x, target, weight, *rest = forward(rng)
        shifted = x - x.max(1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
        grad = floats(rng, *(target.shape if reduction == "none" else ()))
        return np.asarray(grad, np.float32), layout(log_p), target, weight, np.asarray(2.5, np.float32), *rest
    return [PrimitiveCase("softmax_cross_entropy_forward", forward, label=label, tolerance=2e-6),
            PrimitiveCase("softmax_cross_entropy_backward_input", backward, label=label, tolerance=2e-6)]


def _nll(label, shape, reduction):
    def forward(rng):
        target = _labels(rng, shape[1], shape[0], *shape[2:], ignore=-7)
        return floats(rng, *shape), target, rng.random(shape[1], np.float32), -7, reduction

    def backward(rng):
        x, target, weight, *rest = forward(rng)
        grad = np.asarray(floats(rng, *(target.shape if reduction == "none" else ())), np.float32)
        return grad, target, weight, np.asarray(2.5, np.float32), x.shape, *rest
    return [PrimitiveCase("nll_loss_forward", forward, label=label),
            PrimitiveCase("nll_loss_backward_input", backward, label=label)]


def _elementwise(label, kind, shape, reduction, parameter=0.7, weighted=False, layout=lambda x: x):
    def forward(rng):
        x, t = floats(rng, *shape), floats(rng, *shape)
        if kind in ("bce", "bce_with_logits", "kl_div"):
            t = rng.random(shape, np.float32)
            x = rng.random(shape, np.float32) if kind == "bce" else x
        weight = rng.random(shape[-1:], np.float32) if weighted else None
        pos_weight = 1 + rng.random(shape[-1:], np.float32) if weighted and kind == "bce_with_logits" else None
        return layout(x), layout(t), weight, pos_weight, kind, parameter, reduction

    def backward(rng):
        arguments = forward(rng)
        return np.asarray(floats(rng, *(shape if reduction == "none" else ())), np.float32), *arguments
    return [PrimitiveCase("elementwise_loss_forward", forward, label=f"{kind}-{label}"),
            PrimitiveCase("elementwise_loss_backward_input", backward, label=f"{kind}-{label}")]


PRIMITIVE_CASES = [
    *_cross_entropy("lenet", (64, 10), weighted=False),
    *_cross_entropy("one-class", (3, 1)),
    *_cross_entropy("wide", (37, 1003), 0.1, "sum"),
    *_cross_entropy("maps", (2, 21, 9, 7), 0.3, "none"),
    *_cross_entropy("maps-channels-last", (2, 21, 9, 7), 0.0, "none", layout=channels_last),
    *_cross_entropy("strided", (5, 17), layout=strided),
    *_cross_entropy("empty", (0, 4), reduction="sum"),
    *_nll("rows", (33, 7), "mean"),
    *_nll("maps", (2, 5, 3, 4), "none"),
    *[case for kind in ("mse", "l1", "smooth_l1", "huber", "bce", "bce_with_logits", "kl_div", "kl_div_log")
      for case in _elementwise("sum", kind, (33, 7), "sum", weighted=True)],
    *_elementwise("many", "mse", (3, 4111), "mean"),
    *_elementwise("channels-last", "huber", (2, 5, 3, 4), "none", layout=channels_last),
    *_elementwise("strided", "bce_with_logits", (5, 7), "none", weighted=True, layout=strided),
    *_elementwise("beta-0", "smooth_l1", (5, 7), "none", parameter=0.0),
    *_elementwise("empty", "l1", (0, 7), "sum"),
]
