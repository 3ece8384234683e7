"""DataLoader: batches of a dataset, loaded ahead by threads, in order.

Workers are threads, not processes: NumPy, image decoding and this package's kernels release the interpreter lock,
nothing is pickled, and a batch is handed over without a copy. They never enter a parallel kernel, which would take the
cores from the training step; everything random in them is drawn from (seed, epoch, index).
"""

from __future__ import annotations

import itertools
import logging
import operator
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from numbanet.data.ahead import ahead, check_device
from numbanet.data.collate import default_collate
from numbanet.data.dataset import Dataset, IterableDataset, load_each, load_samples, sample_path
from numbanet.data.randomness import ORDER, enter_sample, epoch_scope, generator_scope, keyed_generator
from numbanet.data.samplers import BatchSampler, RandomSampler, SequentialSampler, as_generator
from numbanet.errors import DataError, UnsupportedOperationError, UsageError

logger = logging.getLogger("numbanet.data")

WAITING = 0.05          # share of waiting above which a remedy is named
_PREFETCH_FACTOR = 2


@dataclass(frozen=True)
class WorkerInfo:
    """What `get_worker_info` says inside of a worker."""

    id: int
    num_workers: int
    seed: int
    dataset: Dataset


_worker = threading.local()


def get_worker_info() -> WorkerInfo | None:
    """The worker that this code runs in, or None outside of one."""
    return getattr(_worker, "info", None)


@dataclass
class Waited:
    """How long the loop over an epoch's batches waited for them.

    Attributes
    ----------
    seconds : float
        Spent waiting, that for the first batch included.
    first : float
        Of it, for the first batch, which nothing can be loaded ahead of.
    total : float
        From the beginning of the epoch to the last batch that was asked for.
    batches : int
    """

    seconds: float = 0.0
    first: float = 0.0
    total: float = 0.0
    batches: int = 0

    @property
    def share(self) -> float:
        """Part of the time after the first batch that was spent waiting."""
        rest = self.total - self.first
        return (self.seconds - self.first) / rest if rest > 0 else 0.0

    def log(self, epoch: int, num_workers: int) -> None:
        """Say it, and what to do where it is much."""
        hint = ""
        if self.share > WAITING:
            hint = "; num_workers=1 or more loads ahead" if not num_workers else \
                "; more workers, smaller or packed images (numbanet data pack) or batch transforms load faster"
        logger.info("epoch %d: waited %.2f s for data, %.1f%% of the time%s", epoch, self.seconds, 100 * self.share, hint)


class DataLoader:
    """Iterate over a dataset in batches, with PyTorch's parameters.

    Parameters
    ----------
    dataset
        With `__getitem__` and `__len__`, or an `IterableDataset`. `__getitems__`, where present, loads whole batches.
    batch_size : int or None
        None yields single samples.
    shuffle : bool
        A new order every epoch.
    sampler, batch_sampler
        Iterables of indices and of lists of indices, instead of `shuffle` and of `batch_size`, `shuffle` and
        `drop_last`.
    num_workers : int
        Threads that load ahead; 0 loads in the calling thread. Batches are the same, bit for bit, for every number.
    collate_fn
        Makes a batch of a list of samples; by default `default_collate`.
    drop_last : bool
        Leave out a last batch that is not full.
    timeout : float
        Seconds to wait for a batch of a worker; 0 waits for ever.
    worker_init_fn
        Called with the worker's number in each worker before it loads.
    generator : numpy.random.Generator, numbanet generator or int, optional
        Source of the seed, which is drawn from it at the first iteration; by default numbanet's default generator.
    prefetch_factor : int
        Batches loaded ahead for each worker, 2 by default.
    seed : int, optional
        The seed itself, instead of `generator`.
    on_error : {"raise", "skip"}
        Whether a sample that cannot be loaded is an error or left out of its batch, which is then smaller, or left out altogether
        where it has no other samples. What is left out is logged, the first time as a warning, and kept in `skipped`.
    pin_memory, pin_memory_device
        With ``pin_memory=True, pin_memory_device="cuda"`` tensors are copied to that GPU, through pinned memory and on a stream of its
        own, while the batch before is worked on; what comes out lies there. Not with on_error="skip", and without a device no effect.
    persistent_workers, in_order
        Accepted for compatibility and without effect: threads start in microseconds, and batches always come in order.

    Attributes
    ----------
    waited : Waited
        How long the loop over this epoch's batches (or the last one's) has waited for data; logged when an epoch ends.
    position : int
        Batches of this epoch that the loop has passed, those that were left out altogether among them: where ``set_epoch(epoch,
        first_batch=position)`` goes on.
    skipped : list of DataError
        Samples that were left out, by all iterations; ``error.index`` says which.

    Raises
    ------
    DataError
        While iterating: a sample that failed, with its path and index; a worker that took longer than `timeout`.
    """

    def __init__(self, dataset: Dataset, batch_size: int | None = 1, shuffle: bool | None = None,
                 sampler: Iterable | None = None, batch_sampler: Iterable | None = None, num_workers: int = 0,
                 collate_fn: Callable | None = None, pin_memory: bool = False, drop_last: bool = False,
                 timeout: float = 0, worker_init_fn: Callable[[int], None] | None = None,
                 multiprocessing_context: Any = None,
                 generator: Any = None, *, prefetch_factor: int | None = None, persistent_workers: bool = False,
                 pin_memory_device: str = "", in_order: bool = True, seed: int | None = None, on_error: str = "raise"):
        _check(num_workers, timeout, prefetch_factor, multiprocessing_context)
        if on_error not in ("raise", "skip"):
            raise UsageError(f"DataLoader: expected on_error to be raise or skip, received {on_error!r}")
        self.on_error, self.skipped, self.waited, self.position = on_error, [], Waited(), 0
        self.pin_memory_device = pin_memory_device
        if pin_memory and pin_memory_device:
            if on_error == "skip":
                raise UsageError("DataLoader: pin_memory_device reads a batch ahead, which on_error='skip' cannot; leave out one of them")
            check_device(pin_memory_device)
        self._told: set = set()                 # indices of `skipped`
        self.dataset, self.num_workers, self.timeout, self.drop_last = dataset, num_workers, timeout, drop_last
        self.worker_init_fn, self.generator, self.pin_memory = worker_init_fn, generator, pin_memory
        self.prefetch_factor = prefetch_factor or _PREFETCH_FACTOR
        if batch_sampler is not None:
            if batch_size not in (None, 1) or shuffle or sampler is not None or drop_last:
                raise UsageError("DataLoader: batch_sampler takes the place of batch_size, shuffle, sampler and "
                                 "drop_last; give one or the others")
            batch_size = None
        elif batch_size is None and drop_last:
            raise UsageError("DataLoader: drop_last needs a batch_size, received batch_size=None")
        if sampler is not None and shuffle:
            raise UsageError("DataLoader: expected sampler or shuffle, received both")
        self._stream = isinstance(dataset, IterableDataset)
        if self._stream:
            if shuffle or sampler is not None or batch_sampler is not None:
                raise UsageError("DataLoader: an IterableDataset sets its own order; leave out shuffle, sampler and "
                                 "batch_sampler")
            if on_error == "skip":
                raise UsageError("DataLoader: an IterableDataset cannot be asked for the sample after one that failed; leave out "
                                 "on_error='skip', and skip in its __iter__")
            if num_workers > 1:
                raise UsageError("DataLoader: an IterableDataset is one stream, which one worker reads ahead; expected "
                                 f"num_workers of 0 or 1, received {num_workers}")
        elif sampler is None and batch_sampler is None:
            sampler = RandomSampler(dataset) if shuffle else SequentialSampler(dataset)
        if batch_size is not None and not self._stream:
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.batch_size, self.sampler, self.batch_sampler = batch_size, sampler, batch_sampler
        self.collate_fn = collate_fn or (default_collate if batch_size or batch_sampler is not None else _single)
        self._seed = None if seed is None else operator.index(seed)
        self._next_epoch = self._first_batch = 0

    def __len__(self) -> int:
        if self._stream:
            size, batch = len(self.dataset), self.batch_size or 1
            return size // batch if self.drop_last else -(-size // batch)
        return len(self.sampler if self.batch_sampler is None else self.batch_sampler)

    @property
    def seed(self) -> int:
        """The seed of order and augmentation; drawn from the generator when first needed."""
        if self._seed is None:
            self._seed = int(as_generator(self.generator).integers(2**63))
        return self._seed

    @seed.setter
    def seed(self, seed: int) -> None:
        self._seed = operator.index(seed)

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """The next iteration is this epoch, by default epochs count up from 0; it begins with the batch `first_batch`, and loads none of
        those before it, unless they are of a stream."""
        self._next_epoch, self._first_batch = epoch, first_batch

    def __iter__(self) -> Iterator[Any]:
        epoch, self._next_epoch = self._next_epoch, self._next_epoch + 1
        self.position = first = self._first_batch
        self._first_batch = 0
        # The seed is drawn now and in this thread: default generators belong to threads.
        tasks = self._stream_tasks(self.seed, epoch) if self._stream else itertools.islice(self._tasks(self.seed, epoch), first, None)
        batches = self._load_ahead(tasks) if self.num_workers else self._load(tasks)
        rest = itertools.islice(batches, first, None) if self._stream else batches
        if self.pin_memory and self.pin_memory_device:
            rest = batches = ahead(_closing(rest, batches), self.pin_memory_device)
        return self._measured(rest, batches, epoch)

    def _measured(self, batches: Iterator[Any], source: Any, epoch: int) -> Iterator[Any]:
        """The batches, with the time that the loop waits for each."""
        self.waited = waited = Waited()
        started = time.perf_counter()
        try:
            while True:
                asked = time.perf_counter()
                batch = next(batches, _END)
                now = time.perf_counter()
                waited.seconds, waited.total = waited.seconds + now - asked, now - started
                if batch is _END:
                    break
                waited.batches += 1
                self.position += 1
                if waited.batches == 1:
                    waited.first = now - asked
                yield batch
            waited.log(epoch, self.num_workers)
        finally:
            source.close()

    # --- tasks: functions without arguments that give one batch each --------------------------------------------------

    def _tasks(self, seed: int, epoch: int) -> Iterator[Callable[[], Any]]:
        order = keyed_generator(seed, epoch, ORDER, 0)
        batches = iter(self.sampler if self.batch_sampler is None else self.batch_sampler)
        while True:
            with generator_scope(order):    # samplers draw from it, and draw as late as they like
                batch = next(batches, None)
            if batch is None:
                return
            yield lambda batch=batch: self._fetch(seed, epoch, batch)

    def _fetch(self, seed: int, epoch: int, batch: Any) -> Any:
        with epoch_scope(seed, epoch):
            if self.batch_sampler is None:
                samples = self._samples([batch], load_each)
                return self.collate_fn(samples[0]) if samples else _SKIPPED
            if not len(batch):
                raise UsageError("DataLoader: batch_sampler gave an empty batch; expected lists of one index or more")
            samples = self._samples(list(batch), load_samples)
            return _SKIPPED if samples is None else self._collated(samples, list(batch))

    def _collated(self, samples: Any, indices: list) -> Any:
        try:
            return self.collate_fn(samples)
        except DataError as error:
            position = getattr(error, "position", None)
            if position is None or len(samples) < len(indices):
                raise
            path = sample_path(self.dataset, indices[position])
            raise DataError(f"{error}; position {position} is sample {indices[position]}{'' if path is None else f' ({path})'}") from error

    def _samples(self, indices: list, load: Callable) -> Any:
        """What `load` makes of the indices; with on_error="skip", of those that can be loaded, None where there are none."""
        try:
            return load(self.dataset, indices)
        except DataError as error:
            if self.on_error == "raise" or isinstance(error.__cause__, MemoryError):
                raise
            if len(indices) == 1:
                self._skip(error, indices[0])
                return None
        good = []
        for index in indices:       # which are they? Loaded a second time with the others, a sample is the same
            try:
                load(self.dataset, [index])
                good.append(index)
            except DataError as error:
                self._skip(error, index)
        return load(self.dataset, good) if good else None

    def _skip(self, error: DataError, index: Any) -> None:
        error.index = index
        logger.log(logging.DEBUG if index in self._told else logging.WARNING, "skipped: %s", error)
        self._told.add(index)
        self.skipped.append(error)

    def _stream_tasks(self, seed: int, epoch: int) -> Iterator[Callable[[], Any]]:
        samples, position, ended = None, itertools.count(), False

        def fetch() -> Any:
            nonlocal samples, ended
            with epoch_scope(seed, epoch):
                samples = iter(self.dataset) if samples is None else samples
                batch = []
                for index in itertools.islice(position, self.batch_size or 1):
                    enter_sample(index)
                    sample = _next(samples, index, self.dataset)
                    if sample is _END:
                        ended = True
                        break
                    batch.append(sample)
                if not batch or (ended and self.drop_last):
                    return _END
                return self.collate_fn(batch if self.batch_size else batch[0])

        while not ended:
            yield fetch

    # --- running them -------------------------------------------------------------------------------------------------

    def _load(self, tasks: Iterator[Callable[[], Any]]) -> Iterator[Any]:
        for task in tasks:
            batch = task()
            if batch is _SKIPPED:
                self.position += 1
            elif batch is not _END:
                yield batch

    def _load_ahead(self, tasks: Iterator[Callable[[], Any]]) -> Iterator[Any]:
        numbers = itertools.count()
        workers = ThreadPoolExecutor(self.num_workers, "numbanet-loader")
        pending: deque[Future] = deque()
        wait = True
        try:
            pending.extend(workers.submit(self._run, task, numbers)
                           for task in itertools.islice(tasks, self.num_workers * self.prefetch_factor))
            while pending:
                try:
                    batch = pending[0].result(self.timeout or None)
                except TimeoutError:
                    wait = pending[0].done()    # a TimeoutError of the dataset's own is passed on
                    if wait:
                        raise
                    raise DataError(f"DataLoader: no batch within timeout={self.timeout} s; raise timeout, or see what "
                                    f"{type(self.dataset).__name__} waits for") from None
                pending.popleft()
                for task in itertools.islice(tasks, 1):
                    pending.append(workers.submit(self._run, task, numbers))
                if batch is _SKIPPED:
                    self.position += 1
                elif batch is not _END:
                    yield batch
        finally:    # also when the loop over batches is left early or raises
            workers.shutdown(wait=wait, cancel_futures=True)

    def _run(self, task: Callable[[], Any], numbers: Iterator[int]) -> Any:
        from numbanet.backends.cpu.threads import serial_region

        with serial_region():
            if get_worker_info() is None:   # this thread's first task
                _worker.info = WorkerInfo(next(numbers), self.num_workers, self.seed, self.dataset)
                if self.worker_init_fn is not None:
                    self.worker_init_fn(_worker.info.id)
            return task()


def _closing(batches: Iterator[Any], source: Any) -> Iterator[Any]:
    """The batches; whoever closes it closes their source."""
    try:
        yield from batches
    finally:
        source.close()


_END = object()         # a stream has no more samples
_SKIPPED = object()     # a batch of which no sample could be loaded


def _next(samples: Iterator[Any], position: int, dataset: Dataset) -> Any:
    try:
        return next(samples, _END)
    except Exception as error:
        raise DataError(f"sample {position} of {type(dataset).__name__} failed: {type(error).__name__}: "
                        f"{error}") from error


def _single(sample: Any) -> Any:
    """Collate of batch_size=None: a sample as it is, its arrays as tensors."""
    import numbanet

    if isinstance(sample, np.ndarray):
        return numbanet.from_numpy(sample)
    if isinstance(sample, tuple | list) and not hasattr(sample, "_fields"):
        return type(sample)(_single(part) for part in sample)
    return sample


def _check(num_workers: int, timeout: float, prefetch_factor: int | None, multiprocessing_context: Any) -> None:
    if num_workers < 0:
        raise UsageError(f"DataLoader: expected num_workers of 0 or more, received {num_workers}")
    if timeout < 0:
        raise UsageError(f"DataLoader: expected a timeout of 0 or more seconds, received {timeout}")
    if prefetch_factor is not None and (num_workers == 0 or prefetch_factor < 1):
        raise UsageError(f"DataLoader: prefetch_factor must be 1 or more and needs num_workers of 1 or more, received "
                         f"prefetch_factor={prefetch_factor}, num_workers={num_workers}")
    if multiprocessing_context is not None:
        raise UnsupportedOperationError("DataLoader: workers are threads, which need no multiprocessing_context; leave "
                                        "it out")
