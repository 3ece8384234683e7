"""The detector: shapes on every kind of trunk, what it decodes, its loss, one compiled step, ONNX."""

import numpy as np
import pytest

import numbanet
from numbanet.detection import DecodedDetector, Fitting, Levels, ObjectDetector, detection_loss, detector, select
from numbanet.errors import ShapeError, UsageError

SMALL = {"channels": 16, "convolutions": 1}


@pytest.mark.parametrize(("trunk", "strides", "options"), [
    ("resnet18", (8, 16, 32), {"width": 8}), ("mobilenet_v2", (8, 16, 32, 64), {"width_mult": 0.25}), ("resnet20_cifar", (2, 4), {}),
    ("mnasnet0_5", (16, 32), {}), ("densenet121", (32,), {})])
def test_any_trunk(trunk, strides, options):
    """A row for each position of the levels, in their order, whatever the size; every parameter learns."""
    numbanet.manual_seed(0)
    model = detector(trunk, 3, strides=strides, **SMALL, **options)
    size = (72, 100)
    points, _ = Levels(size, strides).points()
    outputs = model(numbanet.randn(2, 3, *size))
    assert outputs.shape == (2, len(points), 8)
    middles = (outputs[:, :, 3:5] + outputs[:, :, 5:7]) / 2
    apart = np.abs(middles.detach().numpy() - points).max(1)
    assert (apart < 2 * strides[-1] * 64).all()
    detection_loss(outputs, numbanet.tensor(np.stack([Levels(size, strides).encode(np.float32([[10, 10, 60, 50]]), np.array([1]))] * 2))
                   ).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_at_the_beginning_boxes_lie_around_their_positions():
    """Weights of the last layer are almost 0: a box is 4 strides wide, every class has the prior's probability."""
    numbanet.manual_seed(0)
    model = detector("resnet18", 4, width=8, **SMALL).eval()
    boxes, scores = (t.detach().numpy() for t in DecodedDetector(model)(numbanet.zeros(1, 3, 64, 96)))
    points, strides = Levels((64, 96), model.strides).points()
    reach = 2 * strides[:, None]
    np.testing.assert_allclose(boxes[0], np.concatenate([points - reach, points + reach], 1), atol=0.2 * 32)
    np.testing.assert_allclose(scores, np.sqrt(0.01 * 0.5), rtol=0.2)


@pytest.mark.parametrize(("options", "message"), [
    ({"strides": (8, 32)}, "strides expects numbers that double"), ({"strides": (128, 256)}, "from one of"),
    ({"strides": ()}, "strides expects"), ({"channels": 0}, "channels expects an integer of at least 1"),
    ({"num_classes": 0}, "num_classes expects"), ({"convolutions": -1}, "convolutions expects")])
def test_what_cannot_be_made(options, message):
    with pytest.raises(UsageError, match=message):
        detector("resnet18", **{"num_classes": 2, "width": 8, **options})


def test_a_trunk_whose_maps_lie_elsewhere():
    with pytest.raises(ShapeError, match="its layers have no padding; choose another trunk"):
        detector("squeezenet1_0", 2, strides=(8, 16), **SMALL)(numbanet.zeros(1, 3, 64, 64))


def test_a_trunk_without_stages_and_inputs_that_do_not_fit():
    with pytest.raises(UsageError, match="trunk expects the name of a network with stages"):
        detector("lenet5", 3, in_chans=1)
    with pytest.raises(ShapeError, match=r"Detector: x expects \(N, 3, H, W\), received \(1, 1, 64, 64\)"):
        detector("resnet18", 3, width=8, **SMALL)(numbanet.zeros(1, 1, 64, 64))


def test_the_loss_of_perfect_and_of_wrong_answers():
    """Almost nothing where everything is right; more for a wrong class, a shifted box, a false alarm; ignored positions count nowhere."""
    levels = Levels((64, 64), (8, 16))
    targets = levels.encode(np.float32([[8, 8, 30, 34], [40, 20, 60, 60]]), np.array([0, 2]))
    outputs = np.zeros((len(targets), 8), np.float32)
    outputs[:, :3], outputs[:, 7] = -12, 12
    positive = targets[:, 0] >= 0
    outputs[positive, targets[positive, 0].astype(int)] = 12
    outputs[:, 3:7] = np.where(positive[:, None], targets[:, 1:], np.float32([0, 0, 9, 9]))

    def loss(change=lambda o, t: None):
        o, t = outputs.copy(), targets.copy()
        change(o, t)
        return detection_loss(numbanet.tensor(o[None]), numbanet.tensor(t[None])).item()

    def wrong_class(o, t):
        o[positive, :3] = o[positive][:, [1, 2, 0]]

    def shifted(o, t):
        o[positive, 3:7] += 5

    def false_alarm(o, t):
        o[np.flatnonzero(~positive)[0], 1] = 12

    def ignored(o, t):
        false_alarm(o, t)
        t[np.flatnonzero(~positive)[0], 0] = -2
    assert 0 <= loss() < 1e-3
    assert min(map(loss, (wrong_class, shifted, false_alarm))) > 0.05
    assert loss(ignored) == pytest.approx(loss(), abs=1e-5)


def test_pictures_without_objects_have_a_loss():
    outputs = detector("resnet18", 2, width=8, **SMALL)(numbanet.randn(1, 3, 64, 64))
    targets = Levels((64, 64), (8, 16, 32)).encode(np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    assert 0 < detection_loss(outputs, numbanet.tensor(targets[None])).item() < 100


def test_a_compiled_step_is_the_recorded_one():
    numbanet.manual_seed(0)
    model = detector("resnet18", 3, width=8, **SMALL)
    levels = Levels((64, 64), model.strides)
    targets = numbanet.tensor(np.stack([levels.encode(np.float32([[5, 5, 30, 40]]), np.array([k])) for k in range(2)]))
    x = numbanet.randn(2, 3, 64, 64)
    model.train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    expected = detection_loss(model(x), targets)
    expected.backward()
    gradients = {name: p.grad.numpy().copy() for name, p in model.named_parameters()}
    model.load_state_dict(state)
    optimizer = numbanet.optim.SGD(model.parameters(), lr=0.0)
    step = numbanet.compile(model, (x, targets), loss=detection_loss, optimizer=optimizer)
    optimizer.zero_grad()
    loss = step.forward_backward(x, targets)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for name, p in model.named_parameters():
        np.testing.assert_allclose(p.grad.numpy(), gradients[name], rtol=0, atol=2e-4 * np.abs(gradients[name]).max() + 1e-6)


def test_selection():
    """The better of two of a class, both of two classes, nothing below the threshold, the surest first, no more than asked for."""
    boxes = np.float32([[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60]])
    scores = np.float32([[0.5, 0.1], [0.6, 0.9], [0.04, 0.3]])
    found = select(boxes, scores, 0.05, 0.5)
    assert found["labels"].tolist() == [1, 0, 1] and found["scores"].tolist() == np.float32([0.9, 0.6, 0.3]).tolist()
    np.testing.assert_array_equal(found["boxes"], boxes[[1, 1, 2]])
    assert len(select(boxes, scores, 0.05, 0.5, most=2)["labels"]) == 2 and len(select(boxes, scores, 1.0)["labels"]) == 0
    assert select(np.zeros((0, 4), np.float32), np.zeros((0, 3), np.float32))["boxes"].shape == (0, 4)


@pytest.fixture(scope="module")
def made_up():
    numbanet.manual_seed(1)
    model = detector("resnet18", 3, width=8, **SMALL).eval()
    for name, p in model.named_parameters():            # so that scores differ
        if name.startswith("head.logits"):
            p.detach().copy_(numbanet.randn(*p.shape) * 0.5)
    fitting = Fitting((64, 96))
    return ObjectDetector(model, ["a", "b", "c"], fitting, metadata={"task": "detection", "classes": ["a", "b", "c"],
                                                                   "fitting": fitting.as_metadata()})


def test_onnx_runs_the_same(made_up, tmp_path):
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    from numbanet.detection.export import export_detector
    x = np.random.default_rng(0).standard_normal((2, 3, 64, 96)).astype(np.float32)
    exported = export_detector(made_up, tmp_path / "d.onnx")
    assert exported.outputs["boxes"][1:] == (8 * 12 + 4 * 6 + 2 * 3, 4)
    boxes, scores = onnxruntime.InferenceSession(tmp_path / "d.onnx").run(None, {"input": x})
    expected = [t.detach().numpy() for t in DecodedDetector(made_up.model)(numbanet.tensor(x))]
    np.testing.assert_allclose(boxes, expected[0], rtol=1e-4, atol=1e-3)
    # onnxruntime's sigmoid is 1e-8 off where it is almost 0, of which the root is much: what the root is taken of has to agree
    np.testing.assert_allclose(scores.astype(float)**2, expected[1].astype(float)**2, rtol=1e-4, atol=1e-6)

    export_detector(made_up, tmp_path / "n.onnx", nms=True, threshold=0.2, overlap=0.5, most=1000)
    boxes, scores, selected = onnxruntime.InferenceSession(tmp_path / "n.onnx").run(None, {"input": x})
    for picture in range(2):
        mine = select(boxes[picture], scores[picture], 0.2, 0.5, most=10_000)
        theirs = selected[selected[:, 0] == picture]
        found = sorted((int(k), float(scores[picture, p, k])) for _, k, p in theirs)
        assert found == sorted((int(k), float(s)) for k, s in zip(mine["labels"], mine["scores"])) and found


def test_detecting_in_pictures_of_any_size(made_up):
    from PIL import Image
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 50, 3), np.uint8))
    found = made_up.detect(picture, threshold=0.05)
    assert len(found["boxes"]) and (found["boxes"] >= 0).all() and (found["boxes"] <= [50, 300, 50, 300]).all()
    assert made_up.named(found)[0].keys() == {"class", "score", "box"}
