"""Dice and IoU beside plain loops, and beside torchmetrics where it is installed."""

import numpy as np
import pytest

import numbanet
from numbanet.autograd import gradient_check
from numbanet.errors import IndexRangeError, ShapeError, UsageError
from numbanet.segmentation import dice_loss
from numbanet.segmentation.losses import LOSSES, VOID, segmentation_loss
from numbanet.train.metrics import ConfusionMatrix, JaccardIndex, MeanIoU, MetricCollection


def data(n=3, classes=4, height=5, width=7, void=True, seed=0):
    rng = np.random.default_rng(seed)
    logits, target = rng.standard_normal((n, classes, height, width)), rng.integers(0, classes - 1, (n, height, width))
    if void:
        target[rng.random(target.shape) < 0.2] = VOID
    return logits.astype(np.float32), target


def test_dice_by_hand():
    logits, target = data()
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    total = 0.0
    for c in range(4):
        here = target != VOID
        truth = (target == c) & here
        total += (2 * p[:, c][truth].sum() + 1) / (p[:, c][here].sum() + truth.sum() + 1)
    received = dice_loss(numbanet.tensor(logits), numbanet.tensor(target)).item()
    assert received == pytest.approx(1 - total / 4, abs=1e-6)
    sure = numbanet.tensor(np.where(np.arange(4)[None, :, None, None] == np.maximum(target, 0)[:, None], 50.0, -50.0).astype(np.float32))
    assert dice_loss(sure, numbanet.tensor(target)).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_and_void_pixels(name):
    logits, target = data(2, 3, 3, 4)
    loss = segmentation_loss(name)
    x = numbanet.tensor(logits.astype(np.float64), requires_grad=True)
    gradient_check(lambda x: loss(x, numbanet.tensor(target)), x)
    loss(x, numbanet.tensor(target)).backward()
    assert (x.grad.numpy()[(target == VOID)[:, None].repeat(3, 1)] == 0).all()
    assert np.isfinite(dice_loss(numbanet.tensor(logits), numbanet.tensor(np.full(target.shape, VOID))).item())


def test_losses_that_do_not_fit():
    with pytest.raises(UsageError, match="expected one of cross_entropy, dice, dice.cross_entropy, received 'focal'"):
        segmentation_loss("focal")
    with pytest.raises(ShapeError, match=r"target expects \(2, 4, 4\) for logits of \(2, 3, 4, 4\), received \(2, 4, 5\)"):
        dice_loss(numbanet.zeros(2, 3, 4, 4), numbanet.zeros(2, 4, 5, dtype=numbanet.int64))


def plain_iou(labels, target, classes):
    """IoU of each class, NaN where it is neither there nor predicted."""
    here, made = target != VOID, []
    for c in range(classes):
        a, b = (labels == c) & here, (target == c) & here
        made.append((a & b).sum() / (a | b).sum() if (a | b).any() else np.nan)
    return np.array(made)


def test_jaccard_index():
    logits, target = data(classes=5)
    logits[:, 3:] = -9              # one class is nowhere, neither as a target nor predicted
    target[target == 3] = 0
    expected = plain_iou(logits.argmax(1), target, 5)
    assert np.isnan(expected[3:]).all()
    metrics = MetricCollection({name: JaccardIndex(num_classes=5, average=name, ignore_index=VOID)
                                for name in ("macro", "micro", "weighted", "none")})
    assert len(metrics.states) == 1
    for i in range(3):
        metrics.update(numbanet.tensor(logits[i:i + 1]), numbanet.tensor(target[i:i + 1]))
    values = metrics.compute()
    np.testing.assert_allclose(values["none"], np.nan_to_num(expected), rtol=1e-12)
    assert values["macro"] == pytest.approx(np.nanmean(expected), rel=1e-12)
    here = target != VOID
    common = ((logits.argmax(1) == target) & here).sum()
    assert values["micro"] == pytest.approx(common / (2 * here.sum() - common), rel=1e-12)
    binary = JaccardIndex("binary")
    binary.update(np.array([0.9, 0.2, 0.6, 0.1]), np.array([1, 1, 0, 0]))
    assert binary.compute() == pytest.approx(1 / 3)
    with pytest.raises(IndexRangeError, match="classes from 0 to 1"):
        JaccardIndex(num_classes=2).update(np.array([0, 1]), np.array([0, 2]))


def test_mean_iou_goes_by_picture():
    logits, target = data(n=4)
    target[3] = VOID                # says nothing, and counts nowhere
    labels = logits.argmax(1)
    each = np.stack([plain_iou(a, b, 4) for a, b in zip(labels[:3], target[:3])])
    metric = MeanIoU(4, ignore_index=VOID)
    assert np.isnan(metric.compute())
    metric.update(numbanet.tensor(logits[:1]), numbanet.tensor(target[:1]))
    metric.update(labels[1:], target[1:])
    assert metric.compute() == pytest.approx(np.nanmean(each, 1).mean(), rel=1e-12)
    per_class = MeanIoU(4, per_class=True, include_background=False, ignore_index=VOID)
    per_class.update(labels, target)
    np.testing.assert_allclose(per_class.compute()[1:], np.nanmean(each, 0)[1:], rtol=1e-12)
    assert np.isnan(per_class.compute()[0])
    together = MetricCollection({"iou": MeanIoU(4, ignore_index=VOID), "pixels": ConfusionMatrix(4, ignore_index=VOID)})
    together.update(logits, target)
    assert together.compute()["iou"] == metric.compute()
    with pytest.raises(ShapeError, match="expects pictures"):
        MeanIoU(2).update(np.array([0, 1]), np.array([0, 1]))
    with pytest.raises(UsageError, match="num_classes"):
        MeanIoU(1)


def test_beside_torchmetrics():
    torch, torchmetrics = pytest.importorskip("torch"), pytest.importorskip("torchmetrics")
    logits, target = data(classes=4)
    for average in ("macro", "micro", "weighted", "none"):
        peer = torchmetrics.JaccardIndex(task="multiclass", num_classes=4, average=average, ignore_index=VOID)
        own = JaccardIndex(num_classes=4, average=average, ignore_index=VOID)
        peer.update(torch.tensor(logits), torch.tensor(target))
        own.update(logits, target)
        np.testing.assert_allclose(own.compute(), peer.compute().numpy(), rtol=1e-5)
