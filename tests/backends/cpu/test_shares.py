"""Jobs of shares: each is done once, also where one thread does nothing."""

import numpy as np
import pytest
from numba import prange

from numbanet.backends.cpu.compile import JIT, alone, kernel, worker
from numbanet.backends.cpu.shares import begin_shares, next_job


@worker
def _take(slot, slots, counters, jobs, limit, done):
    taken = 0
    while taken < limit:
        job = next_job(counters, slot, slots, jobs)
        if job < 0:
            break
        done[job] += np.float32(1)
        taken += 1


@kernel("void(T[::1], i8, i8)", parallel=True)
def _take_all(done, slots, lazy):
    """Each job of `done` once; slot `lazy` takes none."""
    jobs = done.size
    counters = begin_shares(slots, jobs)
    for slot in prange(slots):
        _take(np.int64(slot), slots, counters, jobs, 0 if slot == lazy else jobs, done)


@pytest.mark.parametrize("jobs", [0, 1, 2, 7, 64, 1001])
@pytest.mark.parametrize("slots", [1, 2, 3, 8])
def test_every_job_is_done_once(jobs, slots):
    done = np.zeros(jobs, np.float32)
    for _ in range(20):
        _take_all(done, slots, -1)
    assert (done == 20).all()


@pytest.mark.parametrize("lazy", [0, 2])
def test_others_do_the_share_of_a_thread_that_does_nothing(lazy):
    done = np.zeros(50, np.float32)
    _take_all(done, 3, lazy)
    assert (done == 1).all()


def test_alone_is_the_same_call_on_one_thread():
    done = np.zeros(9, np.float32)
    alone(_take_all)(done, 4, 1)
    assert (done == 1).all()
    assert alone(_take_all, False) is _take_all
    assert not JIT or alone(_take_all) is not _take_all
