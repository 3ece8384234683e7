"""CSV files of paths and labels, with and without names of columns, and every way in which they can be bad."""

import pytest

from numbanet.data import DataLoader
from numbanet.data.datasets import CSVDataset, image_splits, open_image_data
from numbanet.errors import DataError, UsageError
from tests.data.test_image_folder import save


@pytest.fixture
def pictures(tmp_path):
    for i in range(6):
        save(tmp_path / f"images/{i}.png", 40 * i)
    return tmp_path


def write(folder, text, name="list.csv"):
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder / name


@pytest.mark.parametrize("text", [
    "images/0.png,dog\nimages/1.png,cat\n", "path,label\nimages/0.png,dog\nimages/1.png,cat\n",
    "Label;note;Filename\r\ndog;a;images/0.png\r\n\r\ncat;b;images/1.png\r\n", "file\tclass\nimages/0.png\t dog\nimages/1.png\tcat",
    b"\xef\xbb\xbffile,class\nimages/0.png,dog\nimages/1.png,cat\n", '"images/0.png","dog"\n"images/1.png","cat"\n'])
def test_forms_of_lists(pictures, text):
    images = CSVDataset(write(pictures, text))
    assert images.classes == ["cat", "dog"] and images.targets == [1, 0] and images.splits == ()
    picture, label = images[1]
    assert picture.getpixel((0, 0)) == (40, 0, 0) and label == 0
    assert images.sample_path(0) == str(pictures / "images/0.png")


def test_numbers_are_classes_in_their_order(pictures):
    images = CSVDataset(write(pictures, "0.png,10\n1.png,9\n2.png,0\n"), pictures / "images")
    assert images.classes == ["0", "9", "10"] and images.targets == [2, 1, 0]


def test_names_of_columns_that_are_given(pictures):
    path = write(pictures, "foto,art,label\nimages/0.png,a,x\nimages/1.png,b,x\n")
    assert CSVDataset(path, path_column="foto", label_column="ART").classes == ["a", "b"]
    with pytest.raises(DataError, match="expected a column of path .* received the columns foto, art, label; name it with path_column"):
        CSVDataset(path)


def test_classes_of_another_list(pictures):
    path = write(pictures, "images/0.png,dog\nimages/1.png,emu\n")
    assert CSVDataset(path, classes=["ant", "dog", "emu"]).targets == [1, 2]
    with pytest.raises(DataError, match=r"line 2: the class 'emu' is not one of the 2 known ones \(cat, dog\)"):
        CSVDataset(path, classes=["cat", "dog"])


@pytest.mark.parametrize(("text", "message"), [
    ("", "received an empty file"), ("\n \n", "received an empty file"), ("images/0.png\n", "line 1: expected a path and a label"),
    ("path,label\n", "received only the names"), ("images/0.png,a\nimages/1.png\n", "line 2: expected 2 columns .* received 1"),
    ("images/0.png,a\nimages/9.png,b\nimages/8.png,b\n", "line 2: there is no file .*9.png and 1 more; paths are relative"),
    ("images/0.png,a\nimages/1.png,\n", "line 2: .* received an empty label"), ("path,label\n,a\n", "line 2: .* received an empty path"),
    ("images/0.png,\"a\n", "line 1: not a CSV"), (b"\x89PNG\xff\xfe", "expected a CSV file as UTF-8 text")])
def test_lists_that_cannot_be_used(pictures, text, message):
    with pytest.raises(DataError, match=message):
        CSVDataset(write(pictures, text))


def test_missing_list(tmp_path):
    with pytest.raises(DataError, match="missing"):
        CSVDataset(tmp_path / "list.csv")


def test_broken_image_of_a_list_is_named(pictures):
    (pictures / "images/1.png").write_bytes(b"no image")
    images = CSVDataset(write(pictures, "images/0.png,a\nimages/1.png,b\n"))
    with pytest.raises(DataError, match=r"sample 1 \(.*1.png\) of CSVDataset failed"):
        list(DataLoader(images, 1, collate_fn=list))


def test_folders_with_lists(pictures):
    write(pictures, "images/0.png,a\nimages/1.png,b\nimages/2.png,c\n", "train.csv")
    write(pictures, "images/3.png,c\n", "test.csv")
    data = open_image_data(pictures)
    assert data.layout == "train.csv and test.csv" and data.classes == ("a", "b", "c") and data.test.targets == [2]
    assert data.channels == 3 and data.image_size == (4, 6)
    write(pictures, "images/3.png,d\n", "val.csv")
    with pytest.raises(DataError, match="val.csv, line 1: the class 'd'"):
        open_image_data(pictures)


def test_one_list_with_a_column_of_splits(pictures):
    rows = "images/0.png,a,train\nimages/1.png,b,train\nimages/2.png,b,val\nimages/3.png,a,test\n"
    path = write(pictures, f"path,label,split\n{rows}", "labels.csv")
    splits, layout = image_splits(pictures)
    assert {name: images.targets for name, images in splits.items()} == {"train": [0, 1], "val": [1], "test": [0]}
    assert open_image_data(path).test.targets == [1] and "column of splits" in layout
    with pytest.raises(UsageError, match="expected split to be one of test, train, val, received 'dev'"):
        CSVDataset(path, split="dev")
    for old, new, message in (("test", "dev", "received dev"), ("train", "val", "expected rows with train")):
        write(pictures, f"path,label,split\n{rows.replace(old, new)}", "labels.csv")
        with pytest.raises(DataError, match=message):
            open_image_data(pictures)


def test_a_list_without_splits_is_divided(pictures):
    rows = "".join(f"images/{i}.png,{'ab'[i % 2]}\n" for i in range(6))
    data = open_image_data(write(pictures, rows), 0.3)
    assert len(data.train) == 4 and len(data.test) == 2 and not {*data.train.samples} & {*data.test.samples}
