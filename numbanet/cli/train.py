"""numbanet train"""

from __future__ import annotations

import logging
import os
import shlex
import sys
import time
from dataclasses import asdict
from pathlib import Path

EXAMPLE = ("  numbanet train lenet5\n  numbanet train lenet5 --data photos/ --epochs 30 --out runs/photos\n"
           "  numbanet train --resume runs/lenet5-1")


def configure(parser) -> None:
    parser.add_argument("model", nargs="?", help="a name from 'numbanet models', such as lenet5")
    parser.add_argument("--data", metavar="DIR", help="IDX files (plain or .gz), or class folders, with train/ and val/ or test/ used as "
                                                      "they are (default: the MNIST sample of the package)")
    parser.add_argument("--epochs", type=int, help="passes over the training images (default 25)")
    parser.add_argument("--batch-size", type=int, help="images per step (default 64)")
    parser.add_argument("--lr", type=float, help="peak of the one-cycle learning rate (default: by optimiser)")
    parser.add_argument("--optimizer", help="sgd (default; Nesterov), adam, adamw or rmsprop")
    parser.add_argument("--device", help="cpu (default) or reference")
    parser.add_argument("--seed", type=int, help="of weights, order and distortions (default 0)")
    parser.add_argument("--threads", type=int, help="threads of the kernels (default: all cores)")
    parser.add_argument("--val-fraction", type=float, help="share held out of class folders without val/ or test/ (default 0.2)")
    parser.add_argument("--no-distort", action="store_true", default=None, help="train without small random affine distortions")
    parser.add_argument("--eager", action="store_true", default=None, help="record every step anew instead of replaying a compiled one")
    parser.add_argument("--out", metavar="DIR", help="folder of the run (default: runs/MODEL-N)")
    parser.add_argument("--resume", metavar="RUN", help="go on with a run that was stopped")


def run(arguments) -> int:
    from numbanet.errors import UsageError
    if arguments.threads is not None:
        if arguments.threads < 1:
            raise UsageError(f"--threads: expected at least 1, received {arguments.threads}")
        os.environ["NUMBANET_NUM_THREADS"] = str(arguments.threads)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("numbanet.compile").setLevel(logging.INFO)        # says why the first step takes a while
    settings, resumed = _settings(arguments)
    from numbanet.backends import get_backend
    from numbanet.random import seed_everything
    from numbanet.train.classifier import ClassifierTraining
    from numbanet.train.classifier_data import open_classifier_data
    from numbanet.train.run_directory import RunDirectory
    from numbanet.zoo import create_model, model_info
    get_backend(settings.device)                                        # a missing device is told before any work
    info = model_info(settings.model)
    data = open_classifier_data(settings.data, info, settings.val_fraction, settings.seed, settings.distort, _watch)
    seed_everything(settings.seed)
    model = create_model(settings.model, num_classes=len(data.classes), in_chans=data.preprocessing.input_size[0]).to(settings.device)
    folder = resumed or RunDirectory.create(settings.model, arguments.out)      # nothing is written before all else is known to work
    print(f"{settings.model}: {sum(p.numel() for p in model.parameters()):,} parameters, on {settings.device}")
    print(f"data: {data.description}")
    metadata = {"model": settings.model, "num_classes": len(data.classes), "in_chans": data.preprocessing.input_size[0],
                "classes": list(data.classes), "preprocessing": data.preprocessing.as_metadata()}
    training = ClassifierTraining(model, data.train, data.test, settings, folder, metadata, [Reporter(settings.epochs)])
    if arguments.resume:
        training.resume()
        print(f"going on with {folder.path} at epoch {training.progress.epoch + 1}, step {training.progress.step}")
    else:
        folder.write_config(asdict(settings))
        folder.write_environment()
        data.save_samples(folder.samples)
    started = time.perf_counter()
    confusion = training.fit()
    if confusion is None:
        print(f"stopped at epoch {training.progress.epoch + 1}, step {training.progress.step}; a checkpoint was written. Go on with:\n"
              f"  numbanet train --resume {shlex.quote(str(folder.path))}")
        return 1
    print(f"\ntest accuracy {100 * confusion.accuracy:.2f}% (best {100 * training.best:.2f}%), "
          f"{time.perf_counter() - started:.1f} s of training")
    print("confusion matrix, a row for each true class:")
    print(confusion.table(data.classes))
    print(f"run: {folder.path} (weights/, curves.png, metrics.csv)\ntry it:\n"
          f"  numbanet predict {shlex.quote(str(folder.path))} {shlex.quote(str(folder.samples))}")
    return 0


def _watch(iterator, total: int):
    """Show how many pictures were read."""
    from tqdm import tqdm
    return tqdm(iterator, "reading images", total, leave=False, disable=None, dynamic_ncols=True)


def _settings(arguments):
    """What is asked for, and the run to go on with, if any."""
    from numbanet.errors import UsageError
    from numbanet.train.classifier import Settings
    from numbanet.train.run_directory import RunDirectory
    names = ("epochs", "batch_size", "lr", "optimizer", "device", "seed", "val_fraction", "eager")
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    if arguments.data is not None:
        given["data"] = str(Path(arguments.data).absolute())
    if arguments.no_distort:
        given["distort"] = False
    if arguments.resume:
        folder = RunDirectory.open(arguments.resume)
        flags = {"model": "MODEL", "distort": "--no-distort"}
        changed = [flags.get(name, f"--{name.replace('_', '-')}") for name, value in
                   {**given, "model": arguments.model, "out": arguments.out}.items()
                   if value is not None and name not in ("device", "eager")]
        if changed:
            raise UsageError(f"--resume: a run goes on with what it began with; leave out {', '.join(changed)}")
        try:
            return Settings(**{**folder.read_config(), **given}), folder
        except TypeError as error:
            raise UsageError(f"--resume: {folder.path / 'config.yaml'} has entries that cannot be used ({error})") from error
    if arguments.model is None:
        raise UsageError("expected a model, such as: numbanet train lenet5")
    from numbanet.zoo import model_info
    model_info(arguments.model)
    RunDirectory.check_free(arguments.out)
    return Settings(arguments.model, **given), None


def Reporter(epochs: int):
    """A live bar for each epoch, and a line when it ends."""
    from numbanet.train.callbacks import Callback
    from numbanet.train.classifier import as_row

    class ProgressBar(Callback):
        bar = None

        def on_epoch_begin(self, epoch, logs=None):
            from tqdm import tqdm
            self.close()
            trainer = self.trainer
            self.bar = tqdm(total=len(trainer.train_loader), initial=trainer.progress.batch, leave=False, disable=None,
                            desc=f"epoch {epoch + 1}/{epochs}", dynamic_ncols=True,
                            bar_format="{desc} {percentage:3.0f}%|{bar}| {postfix} {remaining} left")

        def on_train_batch_end(self, batch, logs=None):
            progress = self.trainer.progress
            self.bar.set_postfix_str(f"loss {logs['loss']:.3f}, accuracy {100 * logs['accuracy']:.1f}%, "
                                     f"{progress.seen / max(progress.seconds, 1e-9):,.0f} images/s", refresh=False)
            self.bar.update(1)

        def on_epoch_end(self, epoch, logs=None):
            self.close()
            row = as_row(self.trainer.progress.history[-1])
            number = f"{row['epoch']:>{len(str(epochs))}}/{epochs}"
            print(f"epoch {number}  loss {row['train_loss']:.3f} ({100 * row['train_accuracy']:.2f}%), test loss "
                  f"{row['test_loss']:.3f} ({100 * row['test_accuracy']:.2f}%), {row['images_per_second']:,.0f} images/s", flush=True)

        def on_train_end(self, logs=None):
            self.close()

        def on_exception(self, error):
            self.close()

        def close(self):
            if self.bar is not None:
                self.bar.close()
                self.bar = None
    return ProgressBar()
