"""The confusion matrix, counted by hand."""

import math

import numpy as np

from numbanet.train.metrics import ConfusionMatrix


def test_counts_and_accuracy():
    matrix = ConfusionMatrix(3)
    assert math.isnan(matrix.accuracy)
    matrix.update(np.array([0, 1, 1, 2]), np.array([0, 1, 2, 2]))
    matrix.update(np.array([1]), np.array([2]))                     # 1 said, 2 true
    assert matrix.counts.tolist() == [[1, 0, 0], [0, 1, 0], [0, 2, 1]]
    assert matrix.accuracy == 3 / 5


def test_table():
    matrix = ConfusionMatrix(2)
    matrix.update(np.array([0, 0, 1]), np.array([0, 1, 1]))
    header, cats, dogs = matrix.table(["cat", "a long name"]).splitlines()
    assert header.split() == ["cat", "a", "long", "n"]
    assert cats.split() == ["cat", "1", "."] and dogs.split()[-2:] == ["1", "1"]
    assert len(header) == len(cats) == len(dogs)


def test_many_classes_show_what_is_confused_most():
    matrix, names = ConfusionMatrix(20), [f"c{i}" for i in range(20)]
    assert matrix.table(names) == "no confusions"
    matrix.update(np.array([4, 4, 4, 7, 3]), np.array([3, 3, 4, 6, 3]))
    assert matrix.table(names).splitlines() == ["most frequent confusions:", "  c3 taken for c4: 2", "  c6 taken for c7: 1"]
