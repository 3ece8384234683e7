"""Callbacks that write the logs for other programs."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from numbanet.errors import CheckpointError, UnsupportedOperationError, UsageError
from numbanet.files import write_text
from numbanet.train.callbacks.callback import Callback


class CSVLogger(Callback):
    """A line an epoch: ``epoch`` (from 0) and the logs, sorted by name.

    The file is replaced as a whole at each epoch's end, so that it is never half there.

    Parameters
    ----------
    filename : path
    separator : str
    append : bool
        Go on with the lines that stand there. A training that goes on from a state drops those of later epochs.
    """

    only_first = True

    def __init__(self, filename, separator: str = ",", append: bool = False):
        self.filename, self.separator, self.append = Path(filename), separator, append
        self._names: list[str] = []
        self._rows: list[dict] = []

    def on_train_begin(self, logs=None):
        going_on = self.trainer.progress.epoch > 0 or self.trainer.progress.batch > 0
        if (self.append or going_on) and self.filename.is_file():
            try:
                with open(self.filename, newline="", encoding="utf-8") as file:
                    reader = csv.DictReader(file, delimiter=self.separator)
                    rows = [{name: value for name, value in row.items() if name} for row in reader]
                    self._names = list(reader.fieldnames or ())
            except (OSError, ValueError, csv.Error) as error:
                raise CheckpointError(f"CSVLogger: {self.filename} cannot be read ({error}); choose another file, or "
                                      "append=False") from error
            if "epoch" not in self._names and self._names:
                raise CheckpointError(f"CSVLogger: {self.filename} has no column 'epoch'; choose another file, or append=False")
            done = self.trainer.progress.epoch
            self._rows = [row for row in rows if not going_on or row["epoch"].isdigit() and int(row["epoch"]) < done]

    def on_epoch_end(self, epoch, logs=None):
        if not self._names:
            self._names = ["epoch", *sorted(logs)]
        self._rows.append({"epoch": epoch, **logs})
        text = io.StringIO()
        writer = csv.DictWriter(text, self._names, restval="NA", extrasaction="ignore", delimiter=self.separator, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        write_text(self.filename, text.getvalue())


class TensorBoard(Callback):
    """Event files for TensorBoard, in ``log_dir/train`` and ``log_dir/validation`` (needs the extra ``tensorboard``).

    Parameters
    ----------
    log_dir : path
    update_freq : "epoch" or int
        An integer also writes the losses of every so many batches.
    histogram_freq : int
        Every so many epochs the distributions of all parameters; 0 never.
    """

    only_first = True

    def __init__(self, log_dir="logs", update_freq="epoch", histogram_freq: int = 0):
        if update_freq != "epoch" and not (isinstance(update_freq, int) and update_freq > 0):
            raise UsageError(f"TensorBoard: update_freq expects 'epoch' or a number of batches, received {update_freq!r}")
        try:
            import tensorboardX  # noqa: F401
        except ImportError:
            raise UnsupportedOperationError("TensorBoard needs tensorboardX: pip install 'numbanet[tensorboard]'") from None
        self.log_dir, self.histogram_freq = Path(log_dir), histogram_freq
        self.update_freq = 0 if update_freq == "epoch" else update_freq
        self._writers: dict = {}

    def _writer(self, part: str):
        if part not in self._writers:
            from tensorboardX import SummaryWriter
            self._writers[part] = SummaryWriter(str(self.log_dir / part))
        return self._writers[part]

    def on_train_batch_end(self, batch, logs=None):
        step = self.trainer.progress.step
        if self.update_freq and step and step % self.update_freq == 0:
            for name, value in logs.items():
                self._writer("train").add_scalar(f"batch_{name}", value, step)

    def on_epoch_end(self, epoch, logs=None):
        for name, value in logs.items():
            held_out = name.startswith("val_")
            self._writer("validation" if held_out else "train").add_scalar(f"epoch_{name.removeprefix('val_')}", value, epoch)
        if self.histogram_freq and epoch % self.histogram_freq == 0:
            for name, parameter in self.trainer.model.named_parameters():
                self._writer("train").add_histogram(name, parameter.detach().numpy(), epoch)
        for writer in self._writers.values():
            writer.flush()

    def on_train_end(self, logs=None):
        self.close()

    def on_exception(self, error):
        self.close()

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()
