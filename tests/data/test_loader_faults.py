"""What the loader does with samples that fail, what it says of waiting, and where it can begin."""

import io
import logging

import numpy as np
import pytest
from PIL import Image

from numbanet.data import ArrayDataset, DataLoader, Dataset, IterableDataset
from numbanet.data import transforms as T
from numbanet.data.datasets import ImageFolder
from numbanet.errors import DataError, UsageError
from tests.data.test_image_folder import fill, save

BATCHED = {"single": {"transform": T.Compose([T.RandomHorizontalFlip(), T.ToTensor()])},
           "batched": {"batch_transform": T.BatchCropNormalize((4, 6), random=True, padding=1, flip=0.5)}}


def photos(root, rng, options=BATCHED["single"]):
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for i in range(6):
            Image.fromarray(rng.integers(0, 256, (4, 6, 3), np.uint8)).save(root / name / f"{i}.png")
    return ImageFolder(root, **options)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", BATCHED)
def test_corrupt_image_is_named_and_skipped_on_request(tmp_path, rng, caplog, workers, kind):
    folder = photos(tmp_path, rng, BATCHED[kind])
    whole = {int(label) * 100 + round(float(image.sum()), 2): image for images, labels in DataLoader(folder, 5, seed=1)
             for image, label in zip(images.numpy(), labels.numpy())}
    assert len(whole) == 12
    (tmp_path / "cat/4.png").write_bytes(b"no image")
    (tmp_path / "dog/1.png").write_bytes((tmp_path / "dog/1.png").read_bytes()[:60])
    with pytest.raises(DataError, match=r"sample 4 \(.*cat/4.png\) of ImageFolder failed: .*not an image"):
        list(DataLoader(folder, 5, num_workers=workers, seed=1))
    loader = DataLoader(folder, 5, num_workers=workers, seed=1, on_error="skip")
    with caplog.at_level(logging.WARNING, "numbanet.data"):
        batches = list(loader)
    assert [len(labels) for _, labels in batches] == [4, 4, 2]
    left = {int(label) * 100 + round(float(image.sum()), 2) for images, labels in batches
            for image, label in zip(images.numpy(), labels.numpy())}
    assert len(left) == 10 and left <= whole.keys(), "the others are drawn as if nothing had happened"
    assert sorted(str(e).partition(")")[0].rpartition("/")[2] for e in loader.skipped) == ["1.png", "4.png"]
    assert sum("skipped: sample" in record.message for record in caplog.records) == 2
    list(loader)
    assert len(loader.skipped) == 4


def test_batches_without_any_good_sample(tmp_path, rng):
    folder = photos(tmp_path, rng)
    for i in (2, 3):
        (tmp_path / f"cat/{i}.png").write_bytes(b"")
    for workers in (0, 2):
        loader = DataLoader(folder, 2, num_workers=workers, on_error="skip")
        assert [len(labels) for _, labels in loader] == [2] * 5 and len(loader.skipped) == 2
        assert len(list(DataLoader(folder, batch_size=None, num_workers=workers, on_error="skip"))) == 10


def test_what_cannot_be_skipped():
    class Stream(IterableDataset):
        def __iter__(self):
            yield 1

    class Full(Dataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            raise MemoryError("no more")

    with pytest.raises(UsageError, match="IterableDataset cannot"):
        DataLoader(Stream(), on_error="skip")
    with pytest.raises(UsageError, match="on_error"):
        DataLoader([1], on_error="ignore")
    with pytest.raises(DataError, match="MemoryError"):
        list(DataLoader(Full(), on_error="skip"))


@pytest.mark.parametrize(("mode", "value"), [
    ("P", 3), ("CMYK", (0, 255, 255, 0)), ("RGBA", (255, 0, 0, 255)), ("LA", (60, 255)), ("1", 1), ("I;16", 20000), ("RGB", (255, 0, 0)),
    ("L", 90), ("I", 40000), ("F", 90.0), ("YCbCr", (80, 90, 240))])
def test_modes_of_images(tmp_path, mode, value):
    buffer = io.BytesIO()
    Image.new(mode, (6, 4), value).save(buffer, "TIFF")
    (tmp_path / "a").mkdir()
    (tmp_path / "a/0.tiff").write_bytes(buffer.getvalue())
    image, _ = ImageFolder(tmp_path)[0]
    assert image.mode == "RGB" and image.size == (6, 4)
    red, green, blue = image.getpixel((2, 2))
    expected = {"I;16": 20000 >> 8, "L": 90, "LA": 60, "1": 255, "I": 40000 >> 8, "F": 90}
    if mode in expected:
        assert red == green == blue == expected[mode]
    elif mode != "P":
        assert red > 150 > 100 > green


def test_images_of_other_sizes_are_named(tmp_path):
    fill(tmp_path)
    save(tmp_path / "dog/1.png", size=(7, 5))
    single = ImageFolder(tmp_path, T.ToTensor())
    with pytest.raises(DataError, match=r"received \(3, 4, 6\) first and \(3, 5, 7\) at position 4; .* is sample 4 \(.*dog/1.png\)"):
        list(DataLoader(single, 6))
    with pytest.raises(DataError, match=r"sample 4 \(.*dog/1.png\) of ImageFolder: expected .* \(4, 6, 3\).* received \(5, 7, 3\)"):
        list(DataLoader(ImageFolder(tmp_path, batch_transform=T.BatchCropNormalize(4)), 6))
    with pytest.raises(DataError, match="leave ToTensor and Normalize to batch_transform"):
        list(DataLoader(ImageFolder(tmp_path, T.ToTensor(), batch_transform=T.BatchCropNormalize(4)), 6))


def test_batch_transform_of_files_is_that_of_arrays(tmp_path, rng):
    folder = photos(tmp_path, rng, BATCHED["batched"])
    arrays = ArrayDataset(np.stack([np.asarray(Image.open(path)) for path, _ in folder.samples]), folder.targets, **BATCHED["batched"])
    for ours, theirs in zip(DataLoader(folder, 5, seed=2), DataLoader(arrays, 5, seed=2)):
        np.testing.assert_array_equal(ours[0].numpy(), theirs[0].numpy())
        np.testing.assert_array_equal(ours[1].numpy(), theirs[1].numpy())


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_can_begin_in_its_middle(workers):
    loaded = []

    class Counts(Dataset):
        def __len__(self):
            return 23

        def __getitem__(self, index):
            loaded.append(index)
            return index

    loader = DataLoader(Counts(), 4, shuffle=True, num_workers=workers, seed=5)
    loader.set_epoch(3)
    whole = [batch.tolist() for batch in loader]
    loaded.clear()
    loader.set_epoch(3, first_batch=4)
    assert [batch.tolist() for batch in loader] == whole[4:] and sorted(loaded) == sorted(sum(whole[4:], []))
    assert [batch.tolist() for batch in loader] != whole and len(loaded) == 7 + 23, "the next epoch is whole"

    class Stream(IterableDataset):
        def __iter__(self):
            return iter(range(10))

    stream = DataLoader(Stream(), 4, num_workers=min(workers, 1))
    stream.set_epoch(0, first_batch=1)
    assert [batch.tolist() for batch in stream] == [[4, 5, 6, 7], [8, 9]]


class Clock:
    """A clock that others move on."""

    now = 0.0

    def perf_counter(self):
        return self.now


class Slow(Dataset):
    """A sample takes a quarter of a second."""

    def __init__(self, clock):
        self.clock = clock

    def __len__(self):
        return 12

    def __getitem__(self, index):
        self.clock.now += 0.25
        return index


def test_waiting_is_counted_and_told(caplog, monkeypatch):
    clock = Clock()
    monkeypatch.setattr("numbanet.data.loader.time", clock)
    loader = DataLoader(Slow(clock), 2)
    assert loader.waited.batches == 0 and loader.waited.share == 0
    with caplog.at_level(logging.INFO, "numbanet.data"):
        for _ in loader:
            clock.now += 0.75
    assert (loader.waited.batches, loader.waited.seconds, loader.waited.first, loader.waited.total) == (6, 3.0, 0.5, 7.5)
    assert loader.waited.share == 2.5 / 7
    assert [record.message for record in caplog.records] == ["epoch 0: waited 3.00 s for data, 35.7% of the time; num_workers=1 or more "
                                                             "loads ahead"]


def test_time_in_the_loop_is_no_waiting(caplog, monkeypatch):
    clock = Clock()
    monkeypatch.setattr("numbanet.data.loader.time", clock)
    loader = DataLoader(range(12), 2, num_workers=2)
    with caplog.at_level(logging.INFO, "numbanet.data"):
        for _ in loader:
            clock.now += 1
        iterator = iter(loader)
        next(iterator)
        iterator.close()
    assert [record.message for record in caplog.records] == ["epoch 0: waited 0.00 s for data, 0.0% of the time"]
    assert loader.waited.batches == 1
