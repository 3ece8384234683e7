"""`numbanet train --resume`: Ctrl-C in a process of its own, and what going on refuses."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from numbanet.train.trainer import Trainer
from numbanet.weights import load_weights
from tests.cli.conftest import last_command, run, write_classes, write_digits

OPTIONS = ("--data", "digits", "--epochs", "4", "--batch-size", "16", "--seed", "3")


def weights(folder):
    return {k: v.tobytes() for k, v in load_weights(Path(folder) / "weights" / "last.safetensors")[0].items()}


def test_ctrl_c_ends_cleanly_and_resume_gives_the_same_bits(tmp_path):
    write_digits(tmp_path / "digits", 900, 50)
    command = [sys.executable, "-m", "numbanet", "train", "lenet5", *OPTIONS, "--out", "stopped", "--threads", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    told = []
    for line in process.stdout:
        told.append(line)
        if line.startswith("epoch 1/4"):
            process.send_signal(signal.SIGINT)
            break
    rest, errors = process.communicate(timeout=120)
    assert process.returncode == 1, errors
    assert "Traceback" not in errors and "stopped at epoch" in rest and "a checkpoint was written" in rest
    assert '"threads": 1' in (tmp_path / "stopped" / "environment.json").read_text()

    answer = run(*last_command(rest))
    assert answer.code == 0 and "going on with stopped at epoch 2, step" in answer.out
    assert run("train", "lenet5", *OPTIONS, "--out", "whole").code == 0
    assert weights("stopped") == weights("whole")           # at any number of threads
    epochs = [line.split(",")[0] for line in (tmp_path / "stopped" / "metrics.csv").read_text().splitlines()]
    assert epochs == ["epoch", "1", "2", "3", "4"]


@pytest.mark.parametrize("begun, resumed", [((), ("--eager",)), (("--eager",), ())], ids=["eager later", "eager first"])
def test_a_run_can_go_on_with_other_steps(begun, resumed, tmp_path, monkeypatch):
    write_digits(tmp_path / "digits", 100, 20)
    assert run("train", "lenet5", *OPTIONS, "--out", "whole").code == 0
    finish_epoch = Trainer._finish_epoch

    def stop_after_one(trainer):
        trainer.interrupted = True
        return finish_epoch(trainer)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_finish_epoch", stop_after_one)
        assert run("train", "lenet5", *OPTIONS, "--out", "stopped", *begun).code == 1
    assert run("train", "--resume", "stopped", *resumed).code == 0
    states = [load_weights(f"{name}/weights/last.safetensors")[0] for name in ("stopped", "whole")]
    assert states[0].keys() == states[1].keys()
    for name, weight in states[1].items():                  # compiled steps sum in another order
        np.testing.assert_allclose(states[0][name], weight, rtol=1e-3, atol=2e-5, err_msg=name)


@pytest.fixture
def finished(tmp_path):
    write_digits(tmp_path / "digits")
    assert run("train", "lenet5", *OPTIONS, "--out", "run").code == 0
    return tmp_path / "run"


def set_option(folder, **options):
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump({**config, **options}))


def test_what_going_on_refuses(finished):
    before = weights(finished)
    for options, named in ((["--epochs", "9"], "--epochs"), (["--lr", "1", "--batch-size", "3"], "--batch-size, --lr"),
                           (["lenet5"], "MODEL"), (["--out", "x"], "--out"), (["--no-distort"], "--no-distort"),
                           (["--data", "digits"], "--data")):
        answer = run("train", "--resume", finished, *options)
        assert answer.code == 2 and f"goes on with what it began with; leave out {named}\n" in answer.err

    def damage_one(message, **options):
        original = (finished / "config.yaml").read_text()
        set_option(finished, **options)
        answer = run("train", "--resume", finished)
        (finished / "config.yaml").write_text(original)
        assert answer.code in (1, 2) and message in answer.err
    damage_one("no model 'lenet7'", model="lenet7")
    damage_one("config.yaml has entries that cannot be used", colour="red")
    damage_one("config.yaml has entries that cannot be used", epochs="ten")
    damage_one("gone: the folder is missing", data=str(finished / "gone"))
    assert weights(finished) == before and not Path("x").exists()


def test_a_damaged_newest_checkpoint(finished):
    expected = weights(finished)
    newest = max((finished / "checkpoints").iterdir(), key=lambda p: int(p.name[5:]))
    (newest / "tensors.safetensors").write_bytes(b"cut")
    answer = run("train", "--resume", finished)
    assert answer.code == 0 and "going on with" in answer.out and "at epoch 4, step 12" in answer.out
    assert weights(finished) == expected
    shutil.rmtree(finished / "checkpoints")
    answer = run("train", "--resume", finished)
    assert answer.code == 1 and "holds no checkpoint" in answer.err


def test_a_picture_that_breaks_is_named_and_left_out_on_request(tmp_path, caplog):
    """Its header is whole, so that training meets it; what was learned before is kept."""
    write_classes(tmp_path / "photos", per_class=20, size=(40, 40), mode="RGB")
    whole = (tmp_path / "photos/dark/3.png").read_bytes()
    options = ("train", "resnet20_cifar", "--data", "photos", "--epochs", "2", "--batch-size", "8", "--train-transforms",
               "[{RandomCrop: {size: 32}}, RandomHorizontalFlip]")
    (tmp_path / "photos/dark/3.png").write_bytes(whole[:len(whole) // 2])
    answer = run(*options, "--out", "stopped")
    assert answer.code == 1 and "photos/dark/3.png: the image is broken" in answer.err and "sample " in answer.err
    assert "stopped at epoch 1, step" in answer.err and last_command(answer.err)[-2:] == ["--on-error", "skip"]
    answer = run(*last_command(answer.err))
    assert answer.code == 0 and ", 1 left out" in answer.out
    assert caplog.text.count("dark/3.png") == 1                 # told once, not in every epoch
    assert run(*options, "--out", "whole", "--on-error", "skip").code == 0
    assert weights("stopped") == weights("whole")
    report = (tmp_path / "stopped/report.html").read_text()
    assert "Pictures that were left out: 1" in report and "photos/dark/3.png" in report and "waiting for data" in report
    lines = (tmp_path / "whole/metrics.csv").read_text().splitlines()
    assert lines[0].endswith("images_per_second,waited,skipped") and all(line.endswith(",1") for line in lines[1:])
    assert run("val", "whole").code == 0


def test_pictures_that_are_broken_from_the_start(tmp_path, caplog):
    write_classes(tmp_path / "photos", per_class=10, size=(32, 32))
    for name in ("bright/0", "bright/1", "dark/7"):
        (tmp_path / f"photos/{name}.png").write_bytes(b"no picture")
    options = ("train", "lenet5", "--data", "photos", "--epochs", "1", "--batch-size", "8", "--out", "run")
    answer = run(*options)
    assert answer.code == 1 and "3 of 20 images cannot be used" in answer.err and "--on-error skip" in answer.err
    assert not (tmp_path / "run").exists()
    answer = run(*options, "--on-error", "skip")
    assert answer.code == 0 and "3 of 20 images cannot be used and are left out" in caplog.text
    total = sum(int(n) for line in answer.out.partition("each true class:")[2].splitlines()[2:4] for n in line.split()[1:] if n != ".")
    config = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert total <= 4 and config["on_error"] == "skip"
    assert run("val", "run").code == 0
    for path in (tmp_path / "photos/dark").iterdir():
        path.write_bytes(b"no picture")
    for path in (tmp_path / "photos/bright").iterdir():
        path.write_bytes(b"no picture")
    answer = run(*options[:-1], "other", "--on-error", "skip")
    assert answer.code == 1 and "not an image" in answer.err and not (tmp_path / "other").exists()
