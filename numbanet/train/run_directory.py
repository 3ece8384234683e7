"""The folder of a run.

    runs/lenet5-1/
      config.yaml         what was asked for
      environment.json    versions, processor, threads
      metrics.csv         a line per epoch
      weights/            last.safetensors, best.safetensors: for use elsewhere
      checkpoints/        what --resume reads
      curves.png          loss and accuracy over the epochs
      samples/            test images to try `numbanet predict` on
"""

from __future__ import annotations

import csv
import io
import json
import platform
from pathlib import Path

import yaml

from numbanet._version import __version__
from numbanet.errors import CheckpointError, UsageError
from numbanet.files import write_text
from numbanet.train.recipe import MEASURES

# Columns of metrics.csv; what else an epoch was judged by follows.
FIELDS = ("epoch", "step", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "learning_rate", "seconds",
          "images_per_second", "waited", "skipped")


class RunDirectory:
    """Paths of a run and the files in it."""

    def __init__(self, path):
        self.path = Path(path)

    @classmethod
    def create(cls, model: str, out=None) -> RunDirectory:
        """`out`, which must not hold anything yet, or the next free runs/<model>-<n>."""
        if out is not None:
            cls.check_free(out)
            return cls._make(Path(out))
        number = 1
        while True:
            path = Path("runs") / f"{model}-{number}"
            if not path.exists():
                return cls._make(path)
            number += 1

    @staticmethod
    def check_free(out) -> None:
        """Raise where `out` (None is free) already holds something."""
        path = None if out is None else Path(out)
        if path is not None and path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UsageError(f"--out: {path} exists; choose another folder, or go on with it: --resume {path}")

    @classmethod
    def _make(cls, path: Path) -> RunDirectory:
        try:
            path.mkdir(parents=True, exist_ok=True)
            probe = path / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise CheckpointError(f"{path}: the run cannot be written there ({error.strerror}); "
                                  "choose another folder with --out") from error
        return cls(path)

    def discard(self) -> None:
        """Remove the folder of a run that could not begin; what holds anything stays."""
        try:
            self.path.rmdir()
        except OSError:
            pass

    @classmethod
    def open(cls, path, flag: str = "--resume") -> RunDirectory:
        """A run that exists; `flag` is what asks for it."""
        run = cls(path)
        if not (run.path / "config.yaml").is_file():
            what = "does not exist" if not run.path.exists() else "is not a run folder (it has no config.yaml)"
            raise UsageError(f"{flag}: {run.path} {what}")
        return run

    weights = property(lambda self: self.path / "weights")
    checkpoints = property(lambda self: self.path / "checkpoints")
    samples = property(lambda self: self.path / "samples")

    def write_config(self, config: dict) -> None:
        write_text(self.path / "config.yaml", yaml.safe_dump(config, sort_keys=False))

    def read_config(self) -> dict:
        try:
            config = yaml.safe_load((self.path / "config.yaml").read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise CheckpointError(f"{self.path / 'config.yaml'} cannot be read ({error})") from error
        if not isinstance(config, dict):
            raise CheckpointError(f"{self.path / 'config.yaml'} is not a mapping")
        return config

    def write_environment(self) -> None:
        from importlib.metadata import version

        from numbanet.backends.cpu import hardware, threads
        environment = {"numbanet": __version__, "python": platform.python_version(), "system": platform.platform(),
                       **{name: version(name) for name in ("numpy", "numba", "llvmlite")},
                       "cpu": hardware.cpu_name(), "simd_width": hardware.simd_width(), "threads": threads.get_num_threads()}
        write_text(self.path / "environment.json", json.dumps(environment, indent=2) + "\n")

    def read_metrics(self) -> list[dict]:
        """The epochs of metrics.csv; empty where there is none yet.

        Raises
        ------
        CheckpointError
            It cannot be read.
        """
        path = self.path / "metrics.csv"
        if not path.is_file():
            return []
        try:
            with open(path, newline="", encoding="utf-8") as file:
                return [{name: float(value) for name, value in row.items() if name and value} for row in csv.DictReader(file)]
        except (OSError, ValueError, TypeError, csv.Error) as error:
            raise CheckpointError(f"{path} cannot be read ({error})") from error

    def facts(self) -> dict:
        """What a list of runs shows: model, epochs, accuracies (or what the task is judged by, which "measure" names), None where they
        are not known."""
        config, history = self.read_config(), self.read_metrics()
        task = str(config.get("task", "classification"))
        measure, words = MEASURES.get(task, MEASURES["classification"])
        values = [row[f"test_{measure}"] for row in history if f"test_{measure}" in row]
        last = history[-1] if history else {}
        return {"run": str(self.path), "task": task, "model": config.get("model", config.get("trunk")), "epochs": config.get("epochs"),
                "epochs_done": len(history), "measure": words, "best": max(values, default=None), "last": last.get(f"test_{measure}"),
                "test_loss": last.get("test_loss"), "seconds": sum(row.get("seconds", 0.0) for row in history)}

    def write_metrics(self, history: list[dict], fields: tuple[str, ...] | None = None) -> None:
        """By default all columns that the rows have."""
        text = io.StringIO()
        if fields is None:
            fields = [*FIELDS, *dict.fromkeys(name for row in history for name in row if name not in FIELDS)]
        writer = csv.DictWriter(text, fields, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
        write_text(self.path / "metrics.csv", text.getvalue())


def find_runs(folder) -> list[RunDirectory]:
    """The run that a folder is, or those that lie in it, by the time of their beginning."""
    folder = Path(folder)
    if (folder / "config.yaml").is_file():
        return [RunDirectory(folder)]
    found = [path.parent for path in folder.glob("*/config.yaml")]
    return [RunDirectory(path) for path in sorted(found, key=lambda p: ((p / "config.yaml").stat().st_mtime_ns, p.name))]
