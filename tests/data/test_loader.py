"""The loader: order, seeds, workers, errors, and threads that end."""

import gc
import threading
import time

import numpy as np
import pytest

import numbanet
from numbanet.data import (
    ArrayDataset,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Subset,
    WeightedRandomSampler,
    get_worker_info,
    sample_generator,
    sample_uniforms,
)
from numbanet.errors import DataError, UnsupportedOperationError, UsageError


class Noisy(Dataset):
    """(index, a random number of the sample), slower for even indices."""

    def __init__(self, size=23):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        if index % 2 == 0:
            time.sleep(0.0005)
        return index, float(sample_generator().random())


class NoisyBatches(Noisy):
    def __getitems__(self, indices):
        return list(zip(indices, sample_uniforms(indices, 1)[:, 0].tolist()))


class Numbers(IterableDataset):
    def __init__(self, size=10):
        self.size = size

    def __iter__(self):
        for i in range(self.size):
            yield i, float(sample_generator().random())


def loader_threads():
    return [t for t in threading.enumerate() if t.name.startswith("numbanet-loader")]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert not loader_threads()


@pytest.mark.parametrize("make", [Noisy, NoisyBatches, lambda: Subset(Noisy(), range(20)),
                                  lambda: ConcatDataset([Noisy(5), Noisy(6)])])
@pytest.mark.parametrize("shuffle", [False, True])
def test_batches_are_the_same_for_every_number_of_workers(make, shuffle):
    def epochs(workers):
        loader = DataLoader(make(), 4, shuffle, num_workers=workers, collate_fn=list, seed=3)
        return [list(loader), list(loader)]

    alone = epochs(0)
    assert alone == epochs(1) == epochs(3)
    assert alone[0] != alone[1]     # other augmentation, and other order when shuffled


@pytest.mark.parametrize("workers", [0, 2])
def test_every_sample_comes_once(workers):
    in_order, shuffled = ([i for batch in DataLoader(Noisy(), 4, shuffle, num_workers=workers, collate_fn=list, seed=3)
                           for i, _ in batch] for shuffle in (False, True))
    assert in_order == list(range(23)) == sorted(shuffled) != shuffled


def test_whole_batches_draw_as_single_samples_do():
    single, whole = (list(DataLoader(kind(), 5, True, collate_fn=list, seed=1)) for kind in (Noisy, NoisyBatches))
    assert single == whole


def test_augmentation_does_not_depend_on_the_order():
    in_order, shuffled = (DataLoader(Noisy(), 4, shuffle, collate_fn=list, seed=1) for shuffle in (False, True))
    assert sorted(sum(in_order, [])) == sorted(sum(shuffled, []))


def test_set_epoch_repeats_an_epoch():
    loader = DataLoader(Noisy(), 4, True, collate_fn=list, seed=1)
    epochs = [list(loader) for _ in range(3)]
    loader.set_epoch(1)
    assert list(loader) == epochs[1] and list(loader) == epochs[2] != epochs[0]


@pytest.mark.parametrize("sampler", [lambda d: RandomSampler(d), lambda d: WeightedRandomSampler([1.0] * len(d), 9)])
def test_samplers_follow_the_seed_of_the_loader(sampler):
    def run(seed):
        dataset = Noisy()
        return list(DataLoader(dataset, 4, sampler=sampler(dataset), collate_fn=list, seed=seed))

    assert run(1) == run(1) != run(2)


def test_seed_comes_from_the_generator():
    def run(generator):
        return list(DataLoader(Noisy(), 4, True, collate_fn=list, generator=generator))

    assert run(np.random.default_rng(1)) == run(np.random.default_rng(1)) != run(np.random.default_rng(2))
    assert run(5) == run(5)
    numbanet.random.manual_seed(4)
    first = run(None)
    assert run(None) != first
    numbanet.random.manual_seed(4)
    assert run(None) == first


@pytest.mark.parametrize("workers", [0, 2])
def test_batch_sampler_and_lengths(workers):
    loader = DataLoader(Noisy(), batch_sampler=[[3, 1], [2]], num_workers=workers, collate_fn=list)
    assert [[i for i, _ in b] for b in loader] == [[3, 1], [2]] and len(loader) == 2
    assert len(DataLoader(Noisy(), 4)) == 6 and len(DataLoader(Noisy(), 4, drop_last=True)) == 5
    dropped = list(DataLoader(Noisy(), 4, drop_last=True, num_workers=workers, collate_fn=list))
    assert [len(b) for b in dropped] == [4] * 5
    assert list(DataLoader(Noisy(0), 4, num_workers=workers)) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_single_samples(workers):
    dataset = ArrayDataset(np.arange(12, dtype=np.uint8).reshape(3, 2, 2), [5, 6, 7],
                           batch_transform=lambda x, i: x[:, None] / 1.0)
    samples = list(DataLoader(dataset, batch_size=None, num_workers=workers))
    assert [label for _, label in samples] == [5, 6, 7]
    assert isinstance(samples[1][0], numbanet.Tensor) and samples[1][0].tolist() == [[[4, 5], [6, 7]]]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("drop_last", [False, True])
def test_streams(workers, drop_last):
    loader = DataLoader(Numbers(), 4, num_workers=workers, drop_last=drop_last, collate_fn=list, seed=2)
    batches = list(loader)
    assert [[i for i, _ in b] for b in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]][:2 if drop_last else 3]
    loader.set_epoch(0)
    assert list(loader) == batches
    other = DataLoader(Numbers(), 4, num_workers=1 - workers, drop_last=drop_last, collate_fn=list, seed=2)
    assert list(other) == batches
    assert [s for s, _ in DataLoader(Numbers(3), None, num_workers=workers)] == [0, 1, 2]
    assert list(DataLoader(Numbers(0), 4, num_workers=workers)) == []


def test_streams_have_an_order_of_their_own():
    for options in ({"shuffle": True}, {"sampler": [0]}, {"batch_sampler": [[0]]}, {"num_workers": 2}):
        with pytest.raises(UsageError, match="IterableDataset"):
            DataLoader(Numbers(), **options)


class FailsAt(Noisy):
    def __getitem__(self, index):
        if index == 9:
            raise ValueError("bad pixel")
        return super().__getitem__(index)

    def sample_path(self, index):
        return f"/digits/{index}.png"


@pytest.mark.parametrize("workers", [0, 2])
def test_failed_sample_is_named_and_earlier_batches_come(workers):
    loader = DataLoader(FailsAt(), 4, num_workers=workers, collate_fn=list)
    seen = []
    with pytest.raises(DataError, match=r"sample 9 \(/digits/9.png\) of FailsAt failed: ValueError: bad pixel"):
        for batch in loader:
            seen += [i for i, _ in batch]
    assert seen == list(range(8))


@pytest.mark.parametrize("workers", [0, 1])
def test_failed_stream_is_named(workers):
    class Fails(Numbers):
        def __iter__(self):
            yield 1
            raise ValueError("cut off")

    with pytest.raises(DataError, match="sample 1 of Fails failed: ValueError: cut off"):
        list(DataLoader(Fails(), 4, num_workers=workers))


def test_early_break_ends_the_threads():
    for _ in DataLoader(Noisy(500), 2, num_workers=3, collate_fn=list):
        assert loader_threads()
        break
    assert not loader_threads()


def test_exception_in_the_loop_ends_the_threads():
    def train():
        for _ in DataLoader(Noisy(500), 2, num_workers=3, collate_fn=list):
            raise RuntimeError("diverged")

    with pytest.raises(RuntimeError, match="diverged"):
        train()
    assert not loader_threads()


def test_iterator_that_is_dropped_ends_the_threads():
    iterator = iter(DataLoader(Noisy(500), 2, num_workers=2, collate_fn=list))
    next(iterator)
    del iterator
    gc.collect()
    assert not loader_threads()


def test_two_iterations_at_once():
    loader = DataLoader(Noisy(), 4, num_workers=2, collate_fn=list, seed=1)
    first, second = zip(*zip(loader, loader))
    loader.set_epoch(0)
    assert list(first) == list(loader) and list(second) == list(loader)
    outer = [[i for i, _ in b] for b in loader for _ in DataLoader(Noisy(4), 2, num_workers=1, collate_fn=list)]
    assert len(outer) == 2 * len(loader)


def test_prefetch_is_bounded():
    loaded = []

    class Counts(Noisy):
        def __getitem__(self, index):
            loaded.append(index)
            return index

    iterator = iter(DataLoader(Counts(500), 1, num_workers=2, prefetch_factor=3, collate_fn=list))
    next(iterator)
    time.sleep(0.1)
    assert 1 <= len(loaded) <= 7
    iterator.close()


def test_workers_know_who_they_are():
    started, infos = [], []

    class Asks(Noisy):
        def __getitem__(self, index):
            infos.append(get_worker_info())
            time.sleep(0.002)
            return index

    dataset = Asks()
    list(DataLoader(dataset, 2, num_workers=2, worker_init_fn=started.append, collate_fn=list, seed=9))
    assert sorted(started) == [0, 1]
    assert {(i.id, i.num_workers, i.seed) for i in infos} == {(0, 2, 9), (1, 2, 9)}
    assert all(i.dataset is dataset for i in infos) and get_worker_info() is None


def test_failing_start_of_a_worker_is_passed_on():
    def start(number):
        raise LookupError("no licence")

    with pytest.raises(LookupError, match="no licence"):
        list(DataLoader(Noisy(), 2, num_workers=2, worker_init_fn=start, collate_fn=list))


def test_workers_run_kernels_on_their_own_thread_alone():
    threads = pytest.importorskip("numbanet.backends.cpu.threads")
    modes = []
    list(DataLoader(Noisy(8), 2, num_workers=2, collate_fn=lambda batch: modes.append(threads.launch_mode())))
    assert modes == [threads.SERIAL] * 4


def test_slow_worker_runs_into_the_timeout():
    wait = threading.Event()

    class Hangs(Noisy):
        def __getitem__(self, index):
            wait.wait(10)
            return index

    try:
        with pytest.raises(DataError, match="timeout=0.05"):
            list(DataLoader(Hangs(), 2, num_workers=1, timeout=0.05, collate_fn=list))
    finally:
        wait.set()
        for thread in loader_threads():
            thread.join(5)


def test_default_batches_are_tensors():
    dataset = ArrayDataset(np.zeros((5, 2, 3), np.uint8), range(5), transform=lambda x: x[None].astype(np.float32))
    images, labels = next(iter(DataLoader(dataset, 4, num_workers=1)))
    assert tuple(images.shape) == (4, 1, 2, 3) and images.dtype == numbanet.float32
    assert labels.dtype == numbanet.int64 and labels.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("options, message", [
    ({"num_workers": -1}, "num_workers"), ({"timeout": -1}, "timeout"), ({"prefetch_factor": 2}, "prefetch_factor"),
    ({"num_workers": 1, "prefetch_factor": 0}, "prefetch_factor"), ({"batch_size": 0}, "batch_size"),
    ({"shuffle": True, "sampler": [0]}, "sampler or shuffle"),
    ({"batch_sampler": [[0]], "batch_size": 3}, "batch_sampler"),
    ({"batch_sampler": [[0]], "shuffle": True}, "batch_sampler"),
    ({"batch_size": None, "drop_last": True}, "drop_last"),
])
def test_options_that_contradict(options, message):
    with pytest.raises(UsageError, match=message):
        DataLoader(Noisy(), **options)


def test_empty_batch_of_a_batch_sampler():
    with pytest.raises(UsageError, match="empty batch"):
        list(DataLoader(Noisy(), batch_sampler=[[]]))


def test_processes_are_not_there():
    with pytest.raises(UnsupportedOperationError, match="threads"):
        DataLoader(Noisy(), multiprocessing_context="spawn")
