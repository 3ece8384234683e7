"""Data-parallel training over MPI: each process has a part of every batch, and all have the same weights, bit for bit.

    gradients  g = sum over ranks of n_r / N * g_r      n_r samples on rank r, N on all; each g_r the mean over n_r

Where a loss is the mean over something else, such as the positions that answer for a detector's boxes, n_r counts that
(``Trainer(weigh=...)``). One that is no mean, such as Dice's, is averaged over the processes: as usual in data-parallel training, it is
then that of smaller batches.

Gradients travel in buckets, the last layers' first, each as soon as the backward pass has finished its parameters
(``CompiledStep.on_gradient``), while the pass goes on (Li et al., PyTorch Distributed, VLDB 2020). A GPU packs a bucket, and copies it
to pinned memory of the host, which MPI sends from; the next bucket is copied meanwhile. An MPI that takes memory of GPUs, and says so
(``mpi_memory_alloc_kinds`` of MPI 4.1), is given that. Rank 0 writes; an error on any rank ends all. Needs the extra ``mpi``: mpi4py and an
MPI.
"""

from __future__ import annotations

import logging
import os
import sys
from collections import deque

import numpy as np

from numbanet.backends.interface import order_of
from numbanet.data import Sampler
from numbanet.errors import UnsupportedOperationError, UsageError
from numbanet.nn import SyncBatchNorm

BUCKET_BYTES = 4 << 20          # large enough that latency does not count, small enough to start early
ALIGNED = 8                     # numbers: gradients begin at multiples, so that a GPU moves 16 bytes at once
SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_SIZE", "MPI_LOCALNRANKS")


def launched() -> bool:
    """Whether this process was started by mpiexec, with others."""
    return any(os.environ.get(name, "1") not in ("", "0", "1") for name in SIZES)


class ShardedBatchSampler(Sampler):
    """The part of one rank of each batch: its `batch_size` indices, of one order on all ranks, cut in parts that differ by one at most.

    Parameters
    ----------
    sampler : iterable of indices, the same on all ranks
    batch_size : int
        Of all ranks together.
    rank, size : int
    repeat : bool
        Whether a batch with fewer samples than ranks repeats some, so that each rank has one; otherwise ranks may have one batch less.
    drop_last : bool
        Leave out a last batch that is not full.
    """

    def __init__(self, sampler, batch_size: int, rank: int, size: int, repeat: bool = True, drop_last: bool = False):
        if batch_size < size:
            raise UsageError(f"batch_size: expected at least {size}, one sample for each process, received {batch_size}")
        self.sampler, self.batch_size, self.rank, self.size = sampler, batch_size, rank, size
        self.repeat, self.drop_last = repeat, drop_last

    def __iter__(self):
        batch = []
        for index in self.sampler:
            batch.append(index)
            if len(batch) == self.batch_size:
                yield self._part(batch)
                batch = []
        if batch and not self.drop_last and (part := self._part(batch)):
            yield part

    def _part(self, batch: list) -> list:
        if self.repeat and len(batch) < self.size:
            batch = [batch[i % len(batch)] for i in range(self.size)]
        begin, end = (len(batch) * rank // self.size for rank in (self.rank, self.rank + 1))
        return batch[begin:end]

    def __len__(self) -> int:
        whole, left = divmod(len(self.sampler), self.batch_size)
        own = self.repeat or left * (self.rank + 1) // self.size > left * self.rank // self.size
        return whole + (left > 0 and own and not self.drop_last)


class Replicas:
    """The processes that train one model together, for ``Trainer(replicas=...)``.

    Parameters
    ----------
    communicator : mpi4py communicator, by default COMM_WORLD
    device_buffers : bool, optional
        Whether MPI is given the memory of GPUs; by default where the communicator says that it takes it. For an MPI that takes it and does
        not say so.

    Raises
    ------
    UnsupportedOperationError
        mpi4py is not installed.
    """

    def __init__(self, communicator=None, device_buffers: bool | None = None):
        try:
            from mpi4py import MPI
        except (ImportError, RuntimeError) as error:        # mpi4py without an MPI raises the latter
            raise UnsupportedOperationError(f"training on several processes needs mpi4py and an MPI: pip install 'numbanet[mpi]' ({error})"
                                            ) from None
        self._mpi = MPI
        self.communicator = MPI.COMM_WORLD if communicator is None else communicator
        self.rank, self.size = self.communicator.Get_rank(), self.communicator.Get_size()
        self.device_buffers = _takes_device_buffers(self.communicator) if device_buffers is None else device_buffers
        self._buckets: list[_Bucket] = []
        self._packed: deque[_Bucket] = deque()          # whose numbers are on their way to the host
        self._of: dict[int, _Bucket] = {}
        self._reduce, self._weight = False, 1.0

    def batches(self, sampler, batch_size: int, repeat: bool = True, drop_last: bool = False) -> ShardedBatchSampler:
        """This rank's part of each batch of `batch_size`."""
        return ShardedBatchSampler(sampler, batch_size, self.rank, self.size, repeat, drop_last)

    @staticmethod
    def shards(loader) -> bool:
        """Whether a loader gives each rank a part, so that sums over ranks count each sample once."""
        return isinstance(getattr(loader, "batch_sampler", None), ShardedBatchSampler)

    def own_device(self, device: str) -> str:
        """The device of this process: of "cuda", the GPU of its number among the processes of its machine.

        Raises
        ------
        UsageError
            The machine has fewer GPUs than processes.
        """
        if device != "cuda":
            return device
        from numbanet.cuda import device_count
        neighbours = self.communicator.Split_type(self._mpi.COMM_TYPE_SHARED)
        rank, size, count = neighbours.Get_rank(), neighbours.Get_size(), device_count()
        if size > count:
            there = "there is 1" if count == 1 else f"there are {count}"
            raise UsageError(f"device 'cuda': {size} processes on this machine, each of which takes a GPU of its own, and {there}; start "
                             f"at most {count} here (mpiexec -n {count}), or use --device cpu")
        return f"cuda:{rank}"

    def attach(self, trainer) -> None:
        """All ranks take the weights of the first, and gradients are reduced as they come."""
        for tensor in trainer.model.state_dict().values():
            tensor.copy_(_tensor_like(self.communicator.bcast(tensor.detach().numpy(), 0), tensor))
        group = Group(self.communicator.Dup())          # of its own: what steps say is not mixed up with what is said between them
        for module in trainer.model.modules():
            if isinstance(module, SyncBatchNorm) and module.process_group is None:
                module.process_group = group
        bucket, parameters = None, [p for p in trainer.model.parameters() if p.requires_grad]
        for p in reversed(parameters):                  # the backward pass comes to the last layers first
            if bucket is None or bucket.nbytes >= BUCKET_BYTES or (bucket.backend, bucket.dtype) != (p.backend, p.dtype):
                bucket = _Bucket(p.backend, p.dtype)
                self._buckets.append(bucket)
            bucket.add(p)
            self._of[id(p)] = bucket
        trainer.steps.on_gradient(self._ready)

    def share_buffers(self, model) -> None:
        """All ranks take the first's running statistics, so that they evaluate the same model."""
        for _, buffer in model.named_buffers():
            buffer.copy_(_tensor_like(self.communicator.bcast(buffer.detach().numpy(), 0), buffer))

    def begin(self, weight: float, reduce: bool) -> None:
        """A batch begins that counts by `weight`, its samples or what else; `reduce`: its gradients are the last before an update."""
        before, self._reduce = self._weight, reduce
        self._weight = weight / self.communicator.allreduce(weight)
        if before != self._weight:          # what is gathered was weighed by its own batch's share
            for p in (p for bucket in self._buckets for p in bucket.parameters):
                if p.grad is not None:
                    p.grad.mul_(before / self._weight)
        self._packed.clear()                # of a batch that was given up
        for bucket in self._buckets:
            bucket.missing, bucket.request = len(bucket.parameters), None

    def _ready(self, parameter) -> None:
        bucket = self._of.get(id(parameter))
        if self._reduce and bucket is not None:
            bucket.missing -= 1
            if bucket.missing == 0:
                self._send(bucket)

    def _send(self, bucket: _Bucket) -> None:
        bucket.pack(self._weight)
        if not self._gives(bucket):
            bucket.mirror.fetch()
        self._packed.append(bucket)
        self._reduce_packed(wait=False)

    def _gives(self, bucket: _Bucket) -> bool:
        """Whether MPI is given a bucket's array as it is, on a GPU."""
        return self.device_buffers and hasattr(bucket.array, "__cuda_array_interface__")

    def _reduce_packed(self, wait: bool) -> None:
        """Reduce buckets that have come to the host, or all, in their order, which is the same on all ranks."""
        while self._packed:
            bucket = self._packed[0]
            if self._gives(bucket):
                if not wait:
                    return
                bucket.backend.synchronize()            # MPI knows nothing of streams
                message = bucket.array
            else:
                if not wait and not bucket.mirror.is_here():
                    return
                bucket.mirror.wait()
                message = bucket.mirror.host
            bucket.request = self.communicator.Iallreduce(self._mpi.IN_PLACE, message, self._mpi.SUM)
            self._packed.popleft()

    def finish(self, parameters) -> None:
        """Gradients of all ranks are those of the whole batch when this returns."""
        for bucket in self._buckets:                    # in the same order on all ranks
            if bucket.request is None and bucket not in self._packed:
                self._send(bucket)
        self._reduce_packed(wait=True)
        for bucket in self._buckets:
            bucket.request.Wait()
            bucket.request = None
            if not self._gives(bucket):
                bucket.mirror.send()
            bucket.unpack()

    def mean(self, value: float, weight: float, count: int) -> tuple[float, int]:
        """(mean of the values by their weights, number of samples on all ranks)."""
        total, weights, seen = self.sum(value * weight, weight, count)
        return total / weights, int(seen)

    def sum(self, *values: float) -> tuple[float, ...]:
        """Of each value over all ranks."""
        sums = np.array(values, np.float64)
        self.communicator.Allreduce(self._mpi.IN_PLACE, sums, self._mpi.SUM)
        return tuple(sums.tolist())

    def gather(self, values: list) -> list:
        """What all ranks have in their lists, those of the first rank first; on all."""
        return [value for part in self.communicator.allgather(values) for value in part]

    def sum_states(self, states) -> None:
        """Add up what metrics counted on each rank."""
        for state in states:
            arrays = [np.array(a) for a in state.arrays()]
            for a in arrays:
                self.communicator.Allreduce(self._mpi.IN_PLACE, a, self._mpi.SUM)
            state.load(arrays)

    def any(self, flag: bool) -> bool:
        """Whether it is set on any rank."""
        return bool(self.communicator.allreduce(int(flag), self._mpi.MAX))

    def share(self, value):
        """The first rank's value, on all."""
        return self.communicator.bcast(value, 0)

    def abort(self, error: BaseException) -> None:
        """End all ranks: the others would wait for this one for ever."""
        if self.size > 1:
            logging.getLogger(__name__).error("rank %d: %s: %s", self.rank, type(error).__name__, error)
            sys.stderr.flush()
            self.communicator.Abort(1)


def _takes_device_buffers(communicator) -> bool:
    """Whether an MPI says that it takes the memory of NVIDIA's GPUs: MPI 4.1, section 12.4.3."""
    get_info = getattr(communicator, "Get_info", None)
    kinds = get_info().Get("mpi_memory_alloc_kinds") if get_info else None
    return any(kind.partition(":")[0].strip() == "cuda" for kind in (kinds or "").split(","))


class Group:
    """What :class:`~numbanet.nn.SyncBatchNorm` tells the others by."""

    def __init__(self, communicator):
        self.communicator = communicator

    def gather(self, values: np.ndarray) -> np.ndarray:
        """The float64 vectors of all processes, (processes, len(values))."""
        found = np.empty((self.communicator.Get_size(), len(values)))
        self.communicator.Allgather(values, found)
        return found

    def __deepcopy__(self, memo) -> Group:
        return self                         # a copy of a model talks to the same processes


def _tensor_like(values: np.ndarray, other):
    from numbanet._tensor import tensor
    return tensor(values, dtype=other.dtype, device=other.device)


class _Bucket:
    """Parameters of one device and dtype whose gradients travel together: in an array on the device, and its mirror on the host."""

    def __init__(self, backend, dtype):
        self.backend, self.dtype = backend, dtype
        self.parameters, self.begins, self.numbers = [], [], 0
        self.missing, self.request, self._array, self._mirror = 0, None, None, None

    @property
    def nbytes(self) -> int:
        return self.numbers * self.dtype.itemsize

    def add(self, parameter) -> None:
        self.parameters.append(parameter)
        self.begins.append(self.numbers)
        self.numbers += -(-parameter.numel() // ALIGNED) * ALIGNED

    @property
    def array(self):
        """Of all numbers, 0 where there are none."""
        if self._array is None:
            self._array = self.backend.full((self.numbers,), 0.0, self.dtype)
        return self._array

    @property
    def mirror(self):
        if self._mirror is None:
            self._mirror = self.backend.mirror(self.array)
        return self._mirror

    def _gradients(self) -> tuple[list, list, tuple[int, ...]]:
        """(the parameters that have a gradient, its array in the memory order of the parameter, where it begins)."""
        chosen = [(p, begin) for p, begin in zip(self.parameters, self.begins) if p.grad is not None]
        arrays = [p.grad.array if p.grad.array.strides == p.array.strides else self.backend.empty(p.shape, p.dtype, order_of(p.array))
                  for p, _ in chosen]
        return [p for p, _ in chosen], arrays, tuple([begin for _, begin in chosen])

    def pack(self, weight: float) -> None:
        """Gradients times `weight`, 0 where there is none."""
        parameters, arrays, begins = self._gradients()
        for p, array in zip(parameters, arrays):
            if array is not p.grad.array:
                self.backend.copy(p.grad.array, out=array)
        if len(parameters) < len(self.parameters):
            self.backend.full((self.numbers,), 0.0, self.dtype, out=self.array)
        self.backend.bucket_pack(self.array, arrays, begins, weight)

    def unpack(self) -> None:
        """Gradients are what came back."""
        parameters, arrays, begins = self._gradients()
        self.backend.bucket_unpack(self.array, arrays, begins)
        for p, array in zip(parameters, arrays):
            if array is not p.grad.array:
                self.backend.copy(array, out=p.grad.array)
            p.grad.storage.version += 1
