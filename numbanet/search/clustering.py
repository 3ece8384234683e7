"""k-means: vectors in groups around their means, with the names of scikit-learn; the same for a seed on any number of threads.

Lloyd's iteration (1982, IEEE Transactions on Information Theory 28(2)), started by greedy k-means++ (Arthur and Vassilvitskii, SODA 2007:
each new centre is the best of some rows drawn with probability proportional to their squared distance), and Sculley's mini-batches (WWW
2010). Distances, assignments and sums are primitives of the backend.
"""

from __future__ import annotations

import logging
import math

import numpy as np

from numbanet._tensor import Tensor
from numbanet.backends import get_backend
from numbanet.errors import DataError, ShapeError, UsageError

logger = logging.getLogger("numbanet.search")

PATIENCE = 10           # mini-batches without progress, after which there is no more


class KMeans:
    """Groups of vectors around their means, by Lloyd's iteration.

    Parameters
    ----------
    n_clusters : int
    init : "k-means++", "random" or array (n_clusters, D)
    n_init : int
        How often to start anew; the best result counts.
    max_iter : int
    tol : float
        Of the centres' squared movement, in mean variances of a column, below which it is done.
    random_state : int
        The seed.
    device : str
        Of the backend that computes.

    Attributes
    ----------
    cluster_centers_ : float32 (n_clusters, D)
    labels_ : int64 (N,)
    inertia_ : float
        Sum of the squared distances to the nearest centre.
    n_iter_ : int
    """

    def __init__(self, n_clusters: int = 8, *, init="k-means++", n_init: int = 1, max_iter: int = 300, tol: float = 1e-4,
                 random_state: int = 0, device: str = "cpu"):
        for name, value in (("n_clusters", n_clusters), ("n_init", n_init), ("max_iter", max_iter)):
            if not isinstance(value, (int, np.integer)) or value < 1:
                raise UsageError(f"{type(self).__name__}: {name} expects an integer of at least 1, received {value!r}")
        if isinstance(init, str) and init not in ("k-means++", "random"):
            raise UsageError(f"{type(self).__name__}: init expects 'k-means++', 'random' or an array, received {init!r}")
        self.n_clusters, self.init, self.n_init, self.max_iter, self.tol = int(n_clusters), init, n_init, max_iter, tol
        self.random_state, self.device = random_state, device

    def fit(self, x) -> KMeans:
        """Find the groups of vectors (N, D): a tensor, or an array that may be mapped from a file.

        Raises
        ------
        ShapeError
            It is no matrix.
        UsageError
            There are fewer rows than groups.
        DataError
            A number is not finite.
        """
        x = self._checked(x)
        if len(x) < self.n_clusters:
            raise UsageError(f"{type(self).__name__}: {self.n_clusters} groups need as many vectors, received {len(x)}")
        best = None
        for attempt in range(self.n_init):
            random = np.random.default_rng([self.random_state, attempt])
            centres, iterations = self._run(x, self._start(x, random), random)
            labels, distances = self._assign(x, centres)
            inertia = float(distances.sum(dtype=np.float64))
            if best is None or inertia < best[0]:
                best = inertia, centres, labels, iterations
        self.inertia_, self.cluster_centers_, self.labels_, self.n_iter_ = best
        return self

    def fit_predict(self, x) -> np.ndarray:
        """`fit`, then `labels_`."""
        return self.fit(x).labels_

    def predict(self, x) -> np.ndarray:
        """The nearest centre of each row, int64 (N,)."""
        return self._assign(self._checked(x), self._centres())[0]

    def transform(self, x) -> np.ndarray:
        """The distance of each row to each centre, float32 (N, n_clusters)."""
        x, centres = self._checked(x), self._centres()
        return np.sqrt(np.stack([self._assign(x, centre[None])[1] for centre in centres], 1))

    def _centres(self) -> np.ndarray:
        if not hasattr(self, "cluster_centers_"):
            raise UsageError(f"{type(self).__name__}: fit it first")
        return self.cluster_centers_

    def _checked(self, x) -> np.ndarray:
        x = x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)
        if x.ndim != 2:
            raise ShapeError(f"{type(self).__name__}: expected vectors (N, D), received shape {x.shape}")
        x = x if x.dtype == np.float32 else x.astype(np.float32)
        for first in range(0, len(x), 1 << 14):
            if not np.isfinite(x[first:first + (1 << 14)]).all():
                raise DataError(f"{type(self).__name__}: expected finite numbers; rows from {first} on hold NaN or infinity")
        return x

    @property
    def _backend(self):
        return get_backend(self.device)

    def _assign(self, x, centres) -> tuple[np.ndarray, np.ndarray]:
        backend = self._backend
        return tuple(backend.to_numpy(a) for a in backend.kmeans_assign(backend.from_numpy(x), backend.from_numpy(centres)))

    def _sums(self, x, labels) -> tuple[np.ndarray, np.ndarray]:
        backend = self._backend
        sums = backend.kmeans_sums(backend.from_numpy(x), backend.from_numpy(labels), self.n_clusters)
        return backend.to_numpy(sums), np.bincount(labels, minlength=self.n_clusters)

    def _start(self, x, random) -> np.ndarray:
        """The first centres."""
        if not isinstance(self.init, str):
            centres = self._checked(self.init)
            if centres.shape != (self.n_clusters, x.shape[1]):
                raise ShapeError(f"{type(self).__name__}: init expects shape {(self.n_clusters, x.shape[1])}, received {centres.shape}")
            return centres.copy()
        if self.init == "random":
            return x[np.sort(random.choice(len(x), self.n_clusters, replace=False))].copy()
        return plus_plus(x, self.n_clusters, random, self._assign)

    def _run(self, x, centres, random) -> tuple[np.ndarray, int]:
        limit = self.tol * float(np.var(x[:1 << 14], axis=0, dtype=np.float64).mean())
        labels = None
        for iteration in range(1, self.max_iter + 1):
            before, (labels, distances) = labels, self._assign(x, centres)
            if before is not None and (before == labels).all():
                return centres, iteration
            new = self._means(x, labels, distances, centres)
            moved, centres = float(np.square(new - centres, dtype=np.float64).sum()), new
            if moved <= limit:
                return centres, iteration
        logger.warning("KMeans: the centres still moved after %d iterations; more with max_iter", self.max_iter)
        return centres, self.max_iter

    def _means(self, x, labels, distances, centres) -> np.ndarray:
        """The means of the groups; one without rows takes the row that is farthest from its centre."""
        sums, counts = self._sums(x, labels)
        means = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None].astype(np.float32), centres)
        empty = np.flatnonzero(counts == 0)
        if len(empty):
            means[empty] = x[np.argsort(-distances, kind="stable")[:len(empty)]]
        return means.astype(np.float32)

    def __repr__(self):
        return f"{type(self).__name__}({self.n_clusters})"


class MiniBatchKMeans(KMeans):
    """The same by small random batches: for more vectors than one wants to walk over many times.

    Parameters
    ----------
    batch_size : int
    max_iter : int
        Of all rows, on average. It ends earlier where batches no longer come nearer to their centres.
    Others are those of :class:`KMeans`.
    """

    def __init__(self, n_clusters: int = 8, *, init="k-means++", n_init: int = 1, max_iter: int = 100, batch_size: int = 1024,
                 tol: float = 0.0, random_state: int = 0, device: str = "cpu"):
        super().__init__(n_clusters, init=init, n_init=n_init, max_iter=max_iter, tol=tol, random_state=random_state, device=device)
        if batch_size < 1:
            raise UsageError(f"MiniBatchKMeans: batch_size expects at least 1, received {batch_size}")
        self.batch_size = batch_size

    def _start(self, x, random) -> np.ndarray:
        if isinstance(self.init, str):              # k-means++ of a sample: the point of batches is not to walk over all rows
            most = max(3 * self.batch_size, 20 * self.n_clusters)
            if len(x) > most:
                x = x[np.sort(random.choice(len(x), most, replace=False))]
        return super()._start(x, random)

    def _run(self, x, centres, random) -> tuple[np.ndarray, int]:
        size, counts = min(self.batch_size, len(x)), np.zeros(self.n_clusters, np.int64)
        centres, smoothed, least, worse = centres.copy(), None, math.inf, 0
        share = min(1.0, 2.0 * size / (len(x) + 1))
        for step in range(1, self.max_iter * -(-len(x) // size) + 1):
            batch = np.ascontiguousarray(x[np.sort(random.integers(0, len(x), size))])
            labels, distances = self._assign(batch, centres)
            sums, here = self._sums(batch, labels)
            counts += here
            moved = here > 0
            rate = (1 / np.maximum(counts, 1)).astype(np.float32)[:, None]
            centres[moved] += ((sums - here[:, None].astype(np.float32) * centres) * rate)[moved]
            if step % max(1, 10 * self.n_clusters // size) == 0:
                self._revive(batch, distances, centres, counts)
            mean = float(distances.mean(dtype=np.float64))
            if step > 1:                            # the first tells of the start, not of the batches
                smoothed = mean if smoothed is None else smoothed * (1 - share) + mean * share
                least, worse = (smoothed, 0) if smoothed < least else (least, worse + 1)
                if worse >= PATIENCE:
                    return centres, step
        return centres, self.max_iter * -(-len(x) // size)

    @staticmethod
    def _revive(batch, distances, centres, counts) -> None:
        """Centres that no batch came near to move to rows that are far from all."""
        dead = np.flatnonzero(counts == 0)[:len(batch) // 2]
        if len(dead):
            centres[dead] = batch[np.argsort(-distances, kind="stable")[:len(dead)]]
            counts[dead] = 1


def plus_plus(x: np.ndarray, count: int, random, assign) -> np.ndarray:
    """Greedy k-means++: `count` rows of x far from each other; `assign(x, centres)` gives (labels, squared distances)."""
    trials = 2 + int(math.log(count))
    first = int(random.integers(len(x)))
    chosen, nearest = [first], assign(x, x[first:first + 1])[1].astype(np.float64)
    while len(chosen) < count:
        sums = np.cumsum(nearest)
        if sums[-1] > 0:
            candidates = np.minimum(np.searchsorted(sums, random.random(trials) * sums[-1], "right"), len(x) - 1)
        else:                                       # fewer different rows than centres
            candidates = random.integers(0, len(x), trials)
        options = [np.minimum(nearest, assign(x, x[c:c + 1])[1]) for c in candidates]
        best = int(np.argmin([option.sum() for option in options]))
        chosen.append(int(candidates[best]))
        nearest = options[best]
    return np.array(x[chosen], np.float32)


def normalized_mutual_info_score(labels_true, labels_pred) -> float:
    """How much two groupings of the same things tell of each other: mutual information by the mean of both entropies, 0 to 1.

    Raises
    ------
    ShapeError
        They are not of one length.
    """
    labels_true, labels_pred = np.asarray(labels_true).reshape(-1), np.asarray(labels_pred).reshape(-1)
    if len(labels_true) != len(labels_pred):
        raise ShapeError(f"normalized_mutual_info_score: expected as many labels, received {len(labels_true)} and {len(labels_pred)}")
    first, second = (np.unique(labels, return_inverse=True)[1] for labels in (labels_true, labels_pred))
    if not len(first):
        return 1.0
    table = np.zeros((first.max() + 1, second.max() + 1))
    np.add.at(table, (first, second), 1 / len(first))
    rows, columns = table.sum(1), table.sum(0)
    if len(rows) == len(columns) == 1:
        return 1.0
    there = table > 0
    information = float((table[there] * np.log(table[there] / np.outer(rows, columns)[there])).sum())
    entropies = -float((rows * np.log(rows)).sum()), -float((columns * np.log(columns)).sum())
    return max(0.0, 2 * information / sum(entropies))
