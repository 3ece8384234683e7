"""The command line in this process, folders of data for it, and one network trained for all tests that predict."""

import contextlib
import io
import logging
import os
import shlex
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from numbanet.cli import main
from numbanet.data.datasets import MNISTSample


class Answer(NamedTuple):
    """What a command gave."""

    code: int
    out: str
    err: str


def run(*arguments) -> Answer:
    """Run `numbanet ARGUMENTS` in this process. Whatever goes wrong, nobody is shown a traceback."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(a) for a in arguments])
    answer = Answer(code, out.getvalue(), err.getvalue())
    assert "Traceback" not in answer.out + answer.err
    assert (code == 0) or answer.err.strip() or "stopped at" in answer.out
    return answer


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """In a folder of its own; log levels as before; no waiting for disks."""
    level = logging.getLogger("numbanet.compile").level
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda _handle: None)
    yield
    logging.getLogger("numbanet.compile").setLevel(level)


class Trained(NamedTuple):
    run: Path
    out: str


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Trained:
    """`numbanet train lenet5 --epochs 3 --optimizer adamw`, which learns fast, on the digits of the package."""
    folder = tmp_path_factory.mktemp("a folder with blanks")
    with contextlib.chdir(folder):
        answer = run("train", "lenet5", "--epochs", 3, "--optimizer", "adamw")
    assert answer.code == 0
    return Trained(folder / "runs" / "lenet5-1", answer.out)


def write_idx(path: Path, array: np.ndarray) -> None:
    """uint8 values in the IDX format."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def write_digits(folder: Path, train: int = 60, test: int = 20) -> Path:
    """Real digits as four IDX files, classes in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, is_train, count in (("train", True, train), ("t10k", False, test)):
        digits = MNISTSample(is_train)
        order = np.argsort(digits.targets, kind="stable").reshape(10, -1).T.ravel()[:count]
        write_idx(folder / f"{name}-images-idx3-ubyte", digits.data[order])
        write_idx(folder / f"{name}-labels-idx1-ubyte", digits.targets[order])
    return folder


def write_classes(folder: Path, names=("bright", "dark"), per_class: int = 6, size=(20, 24), mode: str = "L") -> Path:
    """Pictures that a glance tells apart, in a folder for each class."""
    random = np.random.default_rng(0)
    for level, name in zip(np.linspace(220, 20, len(names)), names):
        (folder / name).mkdir(parents=True)
        for i in range(per_class):
            pixels = np.clip(random.normal(level, 15, (*size, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).convert(mode).save(folder / name / f"{i}.png")
    return folder


def last_command(out: str) -> list[str]:
    """The arguments of the command that the output ends with."""
    words = shlex.split(out.strip().splitlines()[-1])
    assert words[0] == "numbanet"
    return words[1:]
