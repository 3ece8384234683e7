"""The folder of a run: where it may be, and what is read back from it."""

import json

import pytest

from numbanet.errors import CheckpointError, UsageError
from numbanet.train.run_directory import RunDirectory
from numbanet.vision.draw import draw_curves


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_runs_are_numbered():
    assert [str(RunDirectory.create("lenet5").path) for _ in range(3)] == [f"runs/lenet5-{n}" for n in (1, 2, 3)]


def test_a_folder_with_something_in_it_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    assert RunDirectory.create("lenet5", "empty").path.is_dir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    (tmp_path / "file").touch()
    for name in ("full", "file"):
        with pytest.raises(UsageError, match=f"--out: {name} exists; .*--resume {name}"):
            RunDirectory.create("lenet5", name)


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="file/run: the run cannot be written there.*--out"):
        RunDirectory.create("lenet5", "file/run")


def test_what_is_no_run(tmp_path):
    with pytest.raises(UsageError, match="--resume: absent does not exist"):
        RunDirectory.open("absent")
    with pytest.raises(UsageError, match="is not a run folder"):
        RunDirectory.open(tmp_path)


def test_config_and_environment(tmp_path):
    run = RunDirectory(tmp_path)
    config = {"model": "lenet5", "lr": 4e-3, "data": None, "distort": True}
    run.write_config(config)
    assert RunDirectory.open(tmp_path).read_config() == config
    run.write_environment()
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert environment["threads"] >= 1 and environment["numba"][0].isdigit()


@pytest.mark.parametrize("text", ["- a list", "a: [", "a: !!python/object/apply:os.getcwd []", "\xff"])
def test_a_damaged_config(text, tmp_path):
    (tmp_path / "config.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match="config.yaml (cannot be read|is not a mapping)"):
        RunDirectory(tmp_path).read_config()


@pytest.mark.parametrize("losses", [[0.5], [0.9, 0.1, 0.0], [float("nan"), 0.2, 3.0], [0.0, 0.0]])
def test_curves_of_any_history(losses, tmp_path):
    history = [{"epoch": i + 1, "train_loss": loss, "test_loss": loss, "train_accuracy": 1.0, "test_accuracy": 0.5}
               for i, loss in enumerate(losses)]
    draw_curves(tmp_path / "curves.png", history)
    assert (tmp_path / "curves.png").stat().st_size > 1000
