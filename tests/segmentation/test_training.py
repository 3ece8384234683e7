"""A segmenter from the command line: trained, stopped and gone on with to the same bits, used, exported, and what is refused."""

import json

import numpy as np
import pytest
from PIL import Image

from numbanet.segmentation import load_segmenter
from numbanet.segmentation.drawing import class_colours, legend, overlay
from numbanet.weights import load_weights
from tests.cli.conftest import run

SMALL = ("--model-options", "{widths: [4, 8], batch_norm: true, dropout: 0.0}", "--data-options", "{count: 24, test_count: 8, size: 32}",
         "--batch-size", "8")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("segmenter") / "run"
    result = run("train", "segmenter", *SMALL, "--epochs", "2", "--out", folder)
    assert result.code == 0, result.err
    assert "test mean IoU" in result.out and "  background " in result.out and f"numbanet segment {folder}" in result.out
    return folder


def test_what_a_run_leaves(trained):
    for name in ("curves.png", "mistakes.png", "confusion.png", "report.html", "metrics.csv", "samples/0.png"):
        assert (trained / name).is_file(), name
    header = (trained / "metrics.csv").read_text().splitlines()[0]
    assert "test_iou" in header and "train_iou" in header
    metadata = load_weights(trained / "weights" / "best.safetensors")[1]
    assert metadata["task"] == "segmentation" and metadata["classes"][0] == "background"
    facts, = json.loads(run("runs", trained, "--json").out)
    assert 0 <= facts["best"] <= 1


def test_it_goes_on_to_the_same_bits(trained, tmp_path):
    """Another process, one thread, and stopped after an epoch: the same weights."""
    one = run("train", "segmenter", *SMALL, "--epochs", "2", "--checkpoint-every", "2", "--out", tmp_path / "run")
    assert one.code == 0
    for checkpoint in sorted((tmp_path / "run" / "checkpoints").iterdir())[-1:]:
        if checkpoint.is_dir():
            for file in checkpoint.iterdir():
                file.unlink()
            checkpoint.rmdir()
    again = run("train", "--resume", tmp_path / "run")
    assert again.code == 0, again.err
    for name in ("last", "best"):
        expected, received = (load_weights(folder / "weights" / f"{name}.safetensors")[0] for folder in (trained, tmp_path / "run"))
        assert all(np.array_equal(expected[key], received[key]) for key in expected)


def test_a_picture_of_another_size(trained, tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (45, 70, 3), np.uint8)).save(tmp_path / "p.png")
    result = run("segment", trained, tmp_path / "p.png", "-o", tmp_path / "o.png", "--mask", tmp_path / "m.png", "--json")
    facts = json.loads(result.out)
    mask = np.asarray(Image.open(tmp_path / "m.png"))
    assert mask.shape == (45, 70) == tuple(facts["size"]) and Image.open(tmp_path / "o.png").size[0] == 1200
    for row in facts["classes"]:
        left, top, right, bottom = row["box"]
        there = mask == row["number"]
        assert there.sum() == row["pixels"] == there[top:bottom, left:right].sum() > 0
    text = run("segment", trained, tmp_path / "p.png", "-o", tmp_path / "o.png").out
    assert "confidence" in text and max(map(len, text.splitlines()[:-1])) <= 80


def test_onnxruntime_gives_the_same(trained, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    assert run("export", trained, tmp_path / "net.onnx").code == 0
    segmenter = load_segmenter(trained)
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).standard_normal((3, 3, 32, 32)).astype(np.float32)
    import numbanet
    with numbanet.no_grad():
        expected = segmenter.model(numbanet.tensor(x)).numpy()
    received, = session.run(None, {session.get_inputs()[0].name: x})
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    pictures = trained / "samples" / "0.png"
    same = [json.loads(run("segment", network, pictures, "-o", tmp_path / "o.png", "--json").out)["classes"]
            for network in (trained, tmp_path / "net.onnx")]
    assert [row["pixels"] for row in same[0]] == [row["pixels"] for row in same[1]]


def test_networks_of_another_kind(trained, tmp_path):
    refused = run("predict", trained, trained / "samples" / "0.png")
    assert refused.code == 1 and "numbanet segment" in refused.err
    wrong = run("train", "resnet20_cifar", "--recipe", "segmenter", *SMALL[2:], "--model-options", "{}", "--out", tmp_path / "run")
    assert wrong.code == 2 and "expected a network that labels the pixels" in wrong.err and not (tmp_path / "run").exists()
    wrong = run("train", "segmenter", *SMALL, "--loss", "focal", "--out", tmp_path / "run")
    assert wrong.code == 2 and "--loss: expected one of" in wrong.err


def test_overlays():
    classes = ("background", *map(str, range(1, 30)))
    colours = class_colours(classes)
    assert len({tuple(c) for c in colours}) == 30 and colours[0].tolist() == [0, 0, 0]
    picture, labels = np.full((6, 8, 3), 100, np.uint8), np.zeros((6, 8), np.uint8)
    labels[1:5, 2:7], labels[0, 0] = 3, 255
    made = overlay(picture, labels, classes)
    assert (made[5, 7] == 100).all() and (made[0, 0] == 100).all()
    np.testing.assert_array_equal(made[1, 2], colours[3])                                      # an edge
    np.testing.assert_array_equal(made[3, 4], np.round((100 + colours[3].astype(float)) / 2))
    assert overlay(picture[..., 0], labels, classes).shape == (6, 8, 3)
    assert legend(classes, labels) == [(tuple(colours[3].tolist()), f"3 {100 * 20 / 48:.1f}%")]


def test_it_is_judged_again(trained):
    result = run("val", trained, "--json")
    assert result.code == 0, result.err
    facts = json.loads(result.out)
    header, *rows = (line.split(",") for line in (trained / "metrics.csv").read_text().splitlines())
    best = max(float(row[header.index("test_iou")]) for row in rows)
    assert facts["images"] == 8 and abs(facts["mean IoU"] - best) < 1e-5


def test_a_classifier_of_pixels_is_told(tmp_path):
    wrong = run("train", "unet", "--model-options", "{widths: [4, 8]}", "--out", tmp_path / "run")
    assert wrong.code == 2 and "numbanet train segmenter" in wrong.err and not (tmp_path / "run").exists()
