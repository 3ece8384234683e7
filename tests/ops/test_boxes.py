"""Boxes: suppression beside a naive one, overlaps by hand and by counting pixels, losses beside torchvision's formulas."""

import numpy as np
import pytest

import numbanet
from numbanet.errors import DTypeError, ShapeError, UnsupportedOperationError, UsageError
from numbanet.ops import boxes as ops


def made_up(rng, count, spread=60):
    corner = rng.integers(0, spread, (count, 2))
    return np.concatenate([corner, corner + rng.integers(1, 30, (count, 2))], 1).astype(np.float32)


def pixels(box, size=96):
    """The pixels of a box with whole edges, as a mask."""
    left, top, right, bottom = map(int, box)
    mask = np.zeros((size, size), bool)
    mask[top:bottom, left:right] = True
    return mask


def naive(boxes, scores, threshold, classes=None):
    """Each box in turn, with a loop over those that remain; overlaps are counted in pixels."""
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        for k in kept:
            if classes is not None and classes[i] != classes[k]:
                continue
            a, b = pixels(boxes[i]), pixels(boxes[k])
            if np.float32((a & b).sum()) / np.float32((a | b).sum()) > np.float32(threshold):
                break
        else:
            kept.append(i)
    return kept


@pytest.mark.parametrize("device", ["cpu", "reference"])
@pytest.mark.parametrize(("count", "threshold"), [(0, 0.5), (1, 0.5), (37, 0.0), (90, 0.3), (90, 0.5), (90, 0.75), (50, 1.0)])
def test_nms_is_the_naive_one(device, count, threshold):
    rng = np.random.default_rng(count)
    boxes, scores = made_up(rng, count), rng.integers(0, 20, count).astype(np.float32)       # many equal scores
    classes = rng.integers(0, 3, count)
    b, s, c = (numbanet.tensor(a, device=device) for a in (boxes, scores, classes))
    kept = ops.nms(b, s, threshold)
    assert kept.dtype == numbanet.int64 and kept.numpy().tolist() == naive(boxes, scores, threshold)
    assert ops.batched_nms(b, s, c, threshold).numpy().tolist() == naive(boxes, scores, threshold, classes)
    assert ops.batched_nms(b, s, c.to(dtype=numbanet.int32), threshold).numpy().tolist() == naive(boxes, scores, threshold, classes)


def test_a_threshold_that_is_met_exactly_suppresses_nothing():
    boxes = numbanet.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5]])       # IoU exactly 0.5
    assert len(ops.nms(boxes, numbanet.tensor([1.0, 0.9]), 0.5)) == 2 and len(ops.nms(boxes, numbanet.tensor([1.0, 0.9]), 0.49)) == 1


def test_the_smaller_of_two():
    boxes = numbanet.tensor([[0.0, 0, 20, 20], [5, 5, 10, 10]])
    scores = numbanet.tensor([0.5, 0.9])
    assert ops.suppress(boxes, scores, 0.5).numpy().tolist() == [1, 0]
    assert ops.suppress(boxes, scores, 0.5, smaller=True).numpy().tolist() == [1]


@pytest.mark.parametrize("scores", [[0.0, -0.0, 0.0], [np.nan, 1, np.inf], [1, -np.nan, -np.inf], [-1, -2, -1]])
def test_order_of_strange_scores(scores):
    """NaN first, whatever its sign; both zeros are equal; equal ones in their order."""
    boxes = numbanet.tensor(np.float32([[0, 0, 1, 1], [5, 5, 6, 6], [9, 9, 10, 10]]))
    values = np.float32(scores)
    expected = sorted(range(3), key=lambda i: (not np.isnan(values[i]), -np.nan_to_num(values[i], nan=0, posinf=1e9, neginf=-1e9), i))
    assert ops.nms(boxes, numbanet.tensor(values), 0.5).numpy().tolist() == expected


@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_box_iou_counts_pixels(device):
    rng = np.random.default_rng(3)
    a, b = made_up(rng, 9), made_up(rng, 23)
    expected = [[(pixels(p) & pixels(q)).sum() / (pixels(p) | pixels(q)).sum() for q in b] for p in a]
    a, b = (numbanet.tensor(x, device=device) for x in (a, b))
    np.testing.assert_allclose(ops.box_iou(a, b).numpy(), expected, rtol=1e-6)
    a.requires_grad = True                  # by tensor operations
    np.testing.assert_allclose(ops.box_iou(a, b).detach().numpy(), expected, rtol=1e-6)
    ops.box_iou(a, b).sum().backward()
    assert np.abs(a.grad.numpy()).max() > 0


def test_generalized_box_iou_by_hand():
    """Two unit squares with a gap of one between them: IoU 0, the box around them has area 3, of which 1 is bare."""
    found = ops.generalized_box_iou(numbanet.tensor([[0.0, 0, 1, 1]]), numbanet.tensor([[2.0, 0, 3, 1], [0, 0, 1, 1]]))
    np.testing.assert_allclose(found.numpy(), [[-1 / 3, 1]], rtol=1e-6)


def test_losses_and_their_gradients_beside_pytorch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    a, b = made_up(rng, 40).astype(np.float64) + 0.3, made_up(rng, 40).astype(np.float64)
    logits, targets = rng.normal(0, 3, (17, 5)), rng.integers(0, 2, (17, 5)).astype(np.float64)

    def giou(p, q):
        x1, y1, x2, y2 = p.unbind(-1)
        u1, v1, u2, v2 = q.unbind(-1)
        low, high = torch.max(x1, u1), torch.min(x2, u2)
        top, bottom = torch.max(y1, v1), torch.min(y2, v2)
        common = torch.where((bottom > top) & (high > low), (high - low) * (bottom - top), torch.zeros_like(low))
        union = (x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - common
        around = (torch.max(x2, u2) - torch.min(x1, u1)) * (torch.max(y2, v2) - torch.min(y1, v1))
        return 1 - (common / (union + 1e-7) - (around - union) / (around + 1e-7))

    def focal(x, t, alpha, gamma):
        p = torch.sigmoid(x)
        ce = torch.nn.functional.binary_cross_entropy_with_logits(x, t, reduction="none")
        loss = ce * (1 - (p * t + (1 - p) * (1 - t))) ** gamma
        return loss if alpha < 0 else loss * (alpha * t + (1 - alpha) * (1 - t))

    cases = [(ops.generalized_box_iou_loss, giou, a, b)]
    cases += [(lambda x, t, k=k: ops.sigmoid_focal_loss(x, t, *k), lambda x, t, k=k: focal(x, t, *k), logits, targets)
              for k in ((0.25, 2), (-1, 2), (0.6, 1.5))]
    for ours, theirs, x, y in cases:
        x1, x2 = numbanet.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        mine, other = ours(x1, numbanet.tensor(y)), theirs(x2, torch.tensor(y))
        np.testing.assert_allclose(mine.detach().numpy(), other.detach().numpy(), rtol=1e-10, atol=1e-12)
        mine.sum().backward()
        other.sum().backward()
        np.testing.assert_allclose(x1.grad.numpy(), x2.grad.numpy(), rtol=1e-8, atol=1e-12)


def test_reductions():
    x, t = numbanet.tensor([[1.0, -2.0]]), numbanet.tensor([[1.0, 0.0]])
    each = ops.sigmoid_focal_loss(x, t).numpy()
    assert ops.sigmoid_focal_loss(x, t, reduction="sum").item() == pytest.approx(each.sum())
    assert ops.sigmoid_focal_loss(x, t, reduction="mean").item() == pytest.approx(each.mean())
    with pytest.raises(UsageError, match="reduction expects"):
        ops.sigmoid_focal_loss(x, t, reduction="max")


@pytest.mark.parametrize("fmt", ["xyxy", "xywh", "cxcywh"])
def test_formats_there_and_back(fmt):
    boxes = made_up(np.random.default_rng(1), 7)
    there = ops.box_convert(numbanet.tensor(boxes), "xyxy", fmt)
    np.testing.assert_allclose(ops.box_convert(there, fmt, "xyxy").numpy(), boxes)
    by_hand = {"xyxy": [2, 3, 6, 13], "xywh": [2, 3, 4, 10], "cxcywh": [4, 8, 4, 10]}
    assert ops.box_convert(numbanet.tensor([[2.0, 3, 6, 13]]), "xyxy", fmt).numpy().tolist() == [by_hand[fmt]]
    assert ops.box_convert(numbanet.zeros(0, 4), "xyxy", fmt).shape == (0, 4)


def test_areas_edges_and_small_boxes():
    boxes = numbanet.tensor([[-5.0, 2, 6, 13], [1, 1, 2, 9]])
    assert ops.box_area(boxes).numpy().tolist() == [121, 8]
    assert ops.clip_boxes_to_image(boxes, (10, 4)).numpy().tolist() == [[0, 2, 4, 10], [1, 1, 2, 9]]
    assert ops.remove_small_boxes(boxes, 2).numpy().tolist() == [0]


def test_errors():
    boxes, scores = numbanet.zeros(3, 4), numbanet.zeros(3)
    with pytest.raises(ShapeError, match=r"nms: boxes expects 4 columns"):
        ops.nms(numbanet.zeros(3, 5), scores, 0.5)
    with pytest.raises(ShapeError, match=r"nms: scores expects shape \(3,\), received \(2,\)"):
        ops.nms(boxes, numbanet.zeros(2), 0.5)
    for threshold in (-0.1, 1.1, np.nan):
        with pytest.raises(UsageError, match="iou_threshold expects a number from 0 to 1"):
            ops.nms(boxes, scores, threshold)
    with pytest.raises(DTypeError, match="idxs expects integers"):
        ops.batched_nms(boxes, scores, scores, 0.5)
    with pytest.raises(ShapeError, match=r"box_iou: boxes2 expects 2 dimensions"):
        ops.box_iou(boxes, scores)
    with pytest.raises(DTypeError, match="boxes2 expects float32"):
        ops.box_iou(boxes, numbanet.zeros(3, 4, dtype=numbanet.float64))
    with pytest.raises(UsageError, match="out_fmt expects one of"):
        ops.box_convert(boxes, "xyxy", "yxyx")
    with pytest.raises(UsageError, match="tensors of one device"):
        ops.nms(boxes, numbanet.zeros(3, device="reference"), 0.5)
    with pytest.raises(UnsupportedOperationError, match="how many boxes remain depends on their values"):
        numbanet.trace(lambda b, s: ops.nms(b, s, 0.5), boxes, scores)
