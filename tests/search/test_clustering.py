"""k-means against the definition, scikit-learn, and itself on other threads and backends."""

import numpy as np
import pytest

import numbanet
from numbanet.backends import PRIMITIVES, get_backend
from numbanet.errors import DataError, IndexRangeError, ShapeError, UsageError
from numbanet.search import KMeans, MiniBatchKMeans, normalized_mutual_info_score
from tests.cases.search import PRIMITIVE_CASES

KINDS = [KMeans, MiniBatchKMeans]


def blobs(rng, groups=7, each=90, D=5, spread=0.1):
    means = rng.standard_normal((groups, D)) * 3
    x = (means[:, None] + spread * rng.standard_normal((groups, each, D))).reshape(-1, D).astype(np.float32)
    order = rng.permutation(len(x))
    return x[order], np.repeat(np.arange(groups), each)[order]


@pytest.mark.parametrize("kind", KINDS)
def test_groups_far_apart_are_found(kind, rng, backend):
    x, labels = blobs(rng)
    found = kind(7, device=backend).fit(x)
    assert normalized_mutual_info_score(labels, found.labels_) == pytest.approx(1)
    apart = x[:, None].astype(np.float64) - found.cluster_centers_
    distances = np.square(apart).sum(2)
    np.testing.assert_array_equal(found.labels_, distances.argmin(1))
    assert found.inertia_ == pytest.approx(distances.min(1).sum(), rel=1e-5)
    np.testing.assert_array_equal(found.predict(x[5:9]), found.labels_[5:9])
    np.testing.assert_allclose(found.transform(x[:3]), np.sqrt(distances[:3]), atol=1e-5)


def test_lloyd_ends_at_the_means(rng):
    x = rng.standard_normal((500, 4)).astype(np.float32)
    found = KMeans(6, tol=0).fit(x)
    for label in range(6):
        np.testing.assert_allclose(found.cluster_centers_[label], x[found.labels_ == label].mean(0, dtype=np.float64), atol=1e-6)


def test_against_scikit_learn(rng):
    """The same start, the same end; and greedy k-means++ is as good as theirs."""
    cluster = pytest.importorskip("sklearn.cluster", exc_type=ImportError)
    x = rng.standard_normal((700, 6)).astype(np.float32)
    start = x[:9].copy()
    ours, theirs = KMeans(9, init=start, tol=0).fit(x), cluster.KMeans(9, init=start, n_init=1, tol=0, algorithm="lloyd").fit(x)
    np.testing.assert_allclose(ours.cluster_centers_, theirs.cluster_centers_, atol=1e-5)
    np.testing.assert_array_equal(ours.labels_, theirs.labels_)
    x, _ = blobs(rng, 30, 40, 3, 0.4)
    ours = np.mean([KMeans(30, random_state=i).fit(x).inertia_ for i in range(8)])
    theirs = np.mean([cluster.KMeans(30, random_state=i, n_init=1).fit(x).inertia_ for i in range(8)])
    assert ours <= 1.1 * theirs
    ours = np.mean([MiniBatchKMeans(30, batch_size=200, random_state=i).fit(x).inertia_ for i in range(8)])
    theirs = np.mean([cluster.MiniBatchKMeans(30, batch_size=200, random_state=i, n_init=1).fit(x).inertia_ for i in range(8)])
    assert ours <= 1.25 * theirs


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_the_same_bits_on_any_number_of_threads(kind, rng):
    x = rng.standard_normal((5000, 33)).astype(np.float32)
    before, results = numbanet.get_num_threads(), []
    try:
        for threads in (1, before):
            numbanet.set_num_threads(threads)
            found = kind(12, random_state=3, max_iter=5).fit(x)
            results.append((found.cluster_centers_.tobytes(), found.labels_.tobytes(), found.inertia_))
    finally:
        numbanet.set_num_threads(before)
    assert results[0] == results[1]
    assert results[0][0] != kind(12, random_state=4, max_iter=5).fit(x).cluster_centers_.tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_few_different_rows(kind):
    x = np.repeat(np.array([[0, 1], [5, 5]], np.float32), 6, 0)
    found = kind(3).fit(x)
    assert len(np.unique(found.labels_)) == 2 and found.inertia_ == 0
    assert kind(1).fit(x[:1]).inertia_ == 0


def test_an_empty_group_moves_to_the_farthest_row():
    x = np.array([[0], [1], [100]], np.float32)
    found = KMeans(2, init=np.array([[0.5], [-1000]], np.float32)).fit(x)
    assert sorted(found.cluster_centers_[:, 0].tolist()) == [0.5, 100]


def test_tensors_strides_and_doubles(rng):
    x, labels = blobs(rng, 3, 20)
    expected = KMeans(3).fit(x)
    for other in (numbanet.tensor(x), np.asfortranarray(x), x.astype(np.float64), np.repeat(x, 2, 0)[::2]):
        np.testing.assert_array_equal(KMeans(3).fit(other).labels_, expected.labels_)


def test_refused():
    x = np.zeros((4, 2), np.float32)
    with pytest.raises(UsageError, match="n_clusters expects an integer of at least 1, received 0"):
        KMeans(0)
    with pytest.raises(UsageError, match="5 groups need as many vectors, received 4"):
        KMeans(5).fit(x)
    with pytest.raises(ShapeError, match="expected vectors"):
        KMeans(2).fit(x[0])
    with pytest.raises(DataError, match="finite"):
        KMeans(2).fit(np.where(np.eye(4)[:, :2] > 0, np.nan, 1))
    with pytest.raises(ShapeError, match="init expects shape"):
        KMeans(2, init=x).fit(x)
    with pytest.raises(UsageError, match="init expects"):
        KMeans(2, init="best")
    with pytest.raises(UsageError, match="fit it first"):
        KMeans(2).predict(x)
    with pytest.raises(UsageError, match="batch_size"):
        MiniBatchKMeans(2, batch_size=0)


def test_mutual_information(rng):
    a, b = rng.integers(0, 5, 300), rng.integers(0, 3, 300)
    assert normalized_mutual_info_score(a, a) == pytest.approx(1) and normalized_mutual_info_score(a, 7 - a) == pytest.approx(1)
    assert normalized_mutual_info_score(np.zeros(9), np.zeros(9)) == 1 and normalized_mutual_info_score([], []) == 1
    assert normalized_mutual_info_score(np.zeros(9), np.arange(9)) == 0
    # a half of the classes apart: I = ln 2, entropies ln 4 and ln 2
    assert normalized_mutual_info_score([0, 1, 2, 3], [0, 0, 1, 1]) == pytest.approx(2 / 3)
    metrics = pytest.importorskip("sklearn.metrics", exc_type=ImportError)
    assert normalized_mutual_info_score(a, b) == pytest.approx(metrics.normalized_mutual_info_score(a, b))
    with pytest.raises(ShapeError, match="as many labels"):
        normalized_mutual_info_score([1], [1, 2])


COMPOSED = [c for c in PRIMITIVE_CASES if PRIMITIVES[c.primitive].composition and "nan" not in c.label]


@pytest.mark.parametrize("case", COMPOSED, ids=lambda c: c.label)
def test_compositions_agree_with_the_primitives(case, rng):
    """A backend without these kernels composes them."""
    primitive, backend, arguments = PRIMITIVES[case.primitive], get_backend("reference"), case.arguments(rng)
    if 0 in arguments[0].shape or 0 in arguments[1].shape:
        pytest.skip("nothing to compute")
    with np.errstate(all="ignore"):
        received, expected = primitive.composition(backend, *arguments), getattr(backend, case.primitive)(*arguments)
    for mine, other in zip(received, expected, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-5)


def test_labels_out_of_range(backend):
    backend = get_backend(backend)
    for wrong in (-1, 3):
        with pytest.raises(IndexRangeError, match="labels expects 0 to 2"):
            backend.kmeans_sums(np.ones((2, 4), np.float32), np.array([0, wrong]), 3)
