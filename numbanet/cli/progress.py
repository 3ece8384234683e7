"""What is shown while a network is trained: a live bar for each epoch, and a line when it ends."""

from __future__ import annotations

import textwrap


def watch(iterator, total: int):
    """Show how many pictures were read."""
    from tqdm import tqdm
    return tqdm(iterator, "reading images", total, leave=False, disable=None, dynamic_ncols=True)


def Reporter(epochs: int, training):
    """A callback that tells, in the words of a kind of training."""
    from numbanet.train.callbacks import Callback
    from numbanet.train.report import waiting
    from numbanet.train.training import as_row

    class ProgressBar(Callback):
        bar, only_first, remedied = None, True, False

        def on_epoch_begin(self, epoch, logs=None):
            from tqdm import tqdm
            self.close()
            trainer = self.trainer
            self.bar = tqdm(total=len(trainer.train_loader), initial=trainer.progress.batch, leave=False, disable=None,
                            desc=f"epoch {epoch + 1}/{epochs}", dynamic_ncols=True,
                            bar_format="{desc} {percentage:3.0f}%|{bar}| {postfix} {remaining} left")

        def on_train_batch_end(self, batch, logs=None):
            progress = self.trainer.progress
            self.bar.set_postfix_str(f"{training.told(logs)}, {progress.seen / max(progress.seconds, 1e-9):,.0f} images/s"
                                     f"{_waiting(progress.waited, progress.seconds)}", refresh=False)
            self.bar.update(1)

        def on_epoch_end(self, epoch, logs=None):
            self.close()
            row = as_row(self.trainer.progress.history[-1])
            number = f"{row['epoch']:>{len(str(epochs))}}/{epochs}"
            print(f"epoch {number}  {training.line(row)}, {row['images_per_second']:,.0f} images/s"
                  + (f", {row['skipped']:,} left out" if row["skipped"] else ""), flush=True)
            if not self.remedied and _waiting(row["waited"], row["seconds"]) and not _is_in_memory(self.trainer.train_loader.dataset):
                self.remedied = True
                print(textwrap.fill(waiting([row]), 80, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False), flush=True)

        def on_train_end(self, logs=None):
            self.close()

        def on_exception(self, error):
            self.close()

        def close(self):
            if self.bar is not None:
                self.bar.close()
                self.bar = None
    return ProgressBar()


def _is_in_memory(dataset) -> bool:
    """Whether there is nothing to be had from packing the data, or from threads that read ahead."""
    from numbanet.data.dataset import ArrayDataset
    while hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    return isinstance(dataset, ArrayDataset)


def _waiting(waited: float, seconds: float) -> str:
    """What to say of waiting for data: nothing where it is little."""
    from numbanet.data.loader import WAITING
    return f", {100 * waited / seconds:.0f}% waiting" if seconds > 0 and waited > WAITING * seconds else ""
