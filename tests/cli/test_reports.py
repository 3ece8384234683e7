"""`numbanet summary`, `models`, `doctor` and `warmup`."""

import json

import numpy as np

import numbanet
from numbanet.zoo import list_models
from tests.cli.conftest import run


def test_summary():
    answer = run("summary", "lenet5")
    assert answer.code == 0
    row = next(line for line in answer.out.splitlines() if line.startswith("features.c3"))
    assert row.split() == "features.c3 Conv2d 16 x 10 x 10 2,416 240,000 6.4 KB 14x14".split()
    assert "parameters     61,706 (246.8 KB)" in answer.out and "multiply-adds  416,520" in answer.out


def test_summary_as_json():
    report = json.loads(run("summary", "lenet5", "--json").out)
    assert report["multiply_adds"] == 416_520 and report["parameters"] == 61_706
    assert [r["receptive_field"] for r in report["rows"] if r["kind"] in ("Conv2d", "MaxPool2d")] == ["5x5", "6x6", "14x14", "16x16"]


def test_summary_of_other_sizes():
    report = json.loads(run("summary", "lenet5", "--num-classes", "3", "--in-chans", "3", "--json").out)
    assert report["input_shapes"] == [[1, 3, 32, 32]] and report["rows"][-1]["output_shape"] == [1, 3]
    batch = json.loads(run("summary", "lenet5", "--input", "8x1x32x32", "--json").out)
    assert batch["multiply_adds"] == 8 * 416_520
    answer = run("summary", "lenet5", "--input", "1,1,28,28")
    assert answer.code == 1 and "x expects (N, 1, 32, 32), received (1, 1, 28, 28)" in answer.err
    answer = run("summary", "lenet5", "--input", "1,3,32,32")
    assert answer.code == 2 and "lenet5 expects (N, 1, height, width), received (1, 3, 32, 32); --in-chans 3" in answer.err
    assert run("summary", "lenet5", "--input", "7").code == 2


def test_summary_of_the_1998_network():
    report = json.loads(run("summary", "lenet5_1998", "--json").out)
    assert report["trainable_parameters"] == 60_000


def test_a_name_unlike_any_model_is_not_answered_with_a_guess():
    answer = run("summary", "nothing")
    assert answer.code == 2 and "did you mean" not in answer.err and "list_models() names all" in answer.err
    assert "did you mean resnet50?" in run("summary", "resnet5").err


def test_models():
    answer = run("models")
    header, *lines = answer.out.splitlines()
    assert answer.code == 0 and [line.split()[0] for line in lines] == list_models() and len(max(lines, key=len)) <= 80
    assert header.split() == "model family params mult-adds input".split()
    assert run("models", "lenet5").out.splitlines()[1].split() == "lenet5 lenet 61.7 K 416.5 K 1x32x32".split()
    assert run("models", "resnet152").out.splitlines()[1].split() == "resnet152 resnet 60.2 M 11.5 G 3x224x224".split()
    report = json.loads(run("models", "--json").out)
    assert report["lenet5"]["input_size"] == [1, 32, 32] and "1998" in report["lenet5"]["paper"] and report["lenet5"]["family"] == "lenet"
    answer = run("models", "x*")
    assert answer.code == 2 and "no model matches 'x*'; there are" in answer.err and "alexnet, convnext" in answer.err


def test_doctor_says_where_machine_code_for_gpus_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBANET_CACHE_DIR", str(tmp_path))
    assert ": 0 kernels" in json.loads(run("doctor", "--json").out)["CUDA kernel cache"]
    (tmp_path / "cubins").write_text("not a folder")
    assert "cannot be written" in json.loads(run("doctor", "--json").out)["CUDA kernel cache"]


def test_doctor():
    report = json.loads(run("doctor", "--json").out)
    assert report["device cpu"] == report["device reference"] == "works"
    assert "NVIDIA driver" in report["device cuda"] or numbanet.cuda.is_available()
    assert report["numpy"] == np.__version__ and report["threads"].partition(":")[0].isdigit()
    for name in ("processor", "SIMD", "caches", "threading layer", "kernel cache", "this process", "numba", "llvmlite"):
        assert report[name]
    text = run("doctor").out
    assert all(f"{name} " in text for name in report)


def test_warmup():
    answer = run("warmup", "lenet5")
    assert answer.code == 0
    assert answer.out.split()[1:3] == ["kernels", "compiled,"] and answer.out.strip().endswith("s")
