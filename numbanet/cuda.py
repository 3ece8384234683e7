"""What scripts ask `torch.cuda`: whether there is a GPU, which, and how its memory is used."""

from __future__ import annotations

from numbanet.backends import get_backend
from numbanet.errors import BackendError
from numbanet.random import manual_seed

__all__ = ["Event", "Stream", "are_tiles_enabled", "check_guards", "current_stream", "default_stream", "device_count", "empty_cache",
           "get_device_capability", "get_device_name", "is_available", "manual_seed", "manual_seed_all", "max_memory_allocated",
           "max_memory_reserved", "mem_get_info", "memory_allocated", "memory_reserved", "record_stream", "reset_peak_memory_stats",
           "set_memory_limit", "set_tiles", "stream", "synchronize"]


def is_available() -> bool:
    """Whether tensors can be on the device "cuda"; ``numbanet.backends.available_backends()`` says why not."""
    try:
        get_backend("cuda")
    except BackendError:
        return False
    return True


def device_count() -> int:
    """The number of GPUs; 0 where CUDA cannot be used."""
    return len(_hardware().gpus()) if is_available() else 0


def get_device_name(device=None) -> str:
    """The name of a GPU, as its driver gives it."""
    return _hardware().gpus()[_backend(device).index].name


def get_device_capability(device=None) -> tuple[int, int]:
    """(9, 0) for an H100."""
    return _hardware().gpus()[_backend(device).index].capability


def synchronize(device=None) -> None:
    """Wait until all work of a GPU is done; only timing needs it, since copies to the host wait."""
    _backend(device).synchronize()


def memory_allocated(device=None) -> int:
    """Bytes that arrays hold."""
    return _allocator(device).statistics().in_use


def max_memory_allocated(device=None) -> int:
    """The most that arrays have held since the start or :func:`reset_peak_memory_stats`."""
    return _allocator(device).statistics().peak_in_use


def memory_reserved(device=None) -> int:
    """Bytes taken from the GPU, the ones kept for reuse included."""
    return _allocator(device).statistics().held


def max_memory_reserved(device=None) -> int:
    """The most that was taken from the GPU."""
    return _allocator(device).statistics().peak_held


def reset_peak_memory_stats(device=None) -> None:
    """Let both maxima start from now."""
    _allocator(device).reset_peaks()


def empty_cache(device=None) -> None:
    """Give what is kept for reuse back to the GPU, for other processes."""
    _allocator(device).trim()


def mem_get_info(device=None) -> tuple[int, int]:
    """(free, total) bytes of a GPU, whoever uses them."""
    return _allocator(device).device.memory()


def check_guards(device=None) -> None:
    """Raise a BackendError where a kernel has written outside of its arrays; needs NUMBANET_CUDA_GUARD=1 from the start."""
    allocator = _allocator(device)
    if not hasattr(allocator, "check"):
        raise BackendError("check_guards: memory has no guard zones in this process; set NUMBANET_CUDA_GUARD=1 before the GPU is used")
    allocator.check()


class Stream:
    """Work of a GPU in an order of its own, beside that of other streams; use it by :func:`stream`.

    As in PyTorch nothing waits between streams unless it is told to: `wait_stream`, `wait_event`, `synchronize`. Memory of an array goes
    back to the stream that it was made on; an array that another stream still reads when Python drops it needs :func:`record_stream`.
    """

    def __init__(self, device=None, *, _handle: int | None = None):
        self._backend = _backend(device)
        self.cuda_stream = self._backend.device.new_stream() if _handle is None else _handle        # for other libraries

    @property
    def device(self) -> str:
        """"cuda:0", ..."""
        return self._backend.name

    def synchronize(self) -> None:
        """Wait until all its work is done."""
        with stream(self):
            self._backend.device.synchronize()

    def query(self) -> bool:
        """Whether all its work is done."""
        return self._backend.device.is_idle(self.cuda_stream)

    def wait_stream(self, other: Stream) -> None:
        """What it is asked from now on comes after what `other` was asked."""
        self._backend.device.wait_for(other.cuda_stream, self.cuda_stream)

    def record_event(self, event: Event | None = None) -> Event:
        """A moment in its order."""
        event = event or Event(device=self.device)
        with stream(self):
            event.record()
        return event

    def __eq__(self, other):
        return isinstance(other, Stream) and (self.device, self.cuda_stream) == (other.device, other.cuda_stream)

    def __hash__(self):
        return hash((self.device, self.cuda_stream))

    def __repr__(self):
        return f"<stream {self.cuda_stream:#x} of {self.device}>"


class stream:
    """Let this thread's work go to a stream: a context manager."""

    def __init__(self, stream: Stream | None):
        self._stream = stream

    def __enter__(self) -> Stream | None:
        if self._stream is not None:
            device = self._stream._backend.device
            self._before, device.stream = device.stream, self._stream.cuda_stream
        return self._stream

    def __exit__(self, *exception) -> None:
        if self._stream is not None:
            self._stream._backend.device.stream = self._before


class Event:
    """A moment in the order of a stream; ``first.elapsed_time(second)`` gives milliseconds."""

    def __init__(self, enable_timing: bool = True, device=None):
        self._event = _backend(device).device.event()

    def record(self, stream_: Stream | None = None) -> None:
        """When all work so far, of the current stream or of the given one, is done."""
        with stream(stream_):
            self._event.record()

    def synchronize(self) -> None:
        """Wait for it."""
        self._event.synchronize()

    def query(self) -> bool:
        """Whether it has passed."""
        return self._event.query()

    def elapsed_time(self, later: Event) -> float:
        """Milliseconds from here to a later one."""
        return self._event.elapsed(later._event)


def current_stream(device=None) -> Stream:
    """The stream that this thread's work goes to."""
    return Stream(device, _handle=_backend(device).device.stream)


def default_stream(device=None) -> Stream:
    """The stream that all threads begin with."""
    return Stream(device, _handle=_backend(device).device.default_stream)


def record_stream(tensor, stream: Stream) -> None:
    """Keep the memory of a tensor from reuse until what `stream` has been asked for, when the tensor is dropped, is done."""
    tensor.array.lease.readers = (*tensor.array.lease.readers, stream.cuda_stream)


def set_memory_limit(nbytes: int | None, device=None) -> None:
    """The most that may be taken from a GPU (NUMBANET_CUDA_MEMORY_LIMIT in megabytes is the start); None for all there is."""
    _allocator(device).limit = nbytes


def set_tiles(enabled: bool | None) -> None:
    """Let matrix products and convolutions run as tile programs on tensor cores (True), or never (False).

    None, the start: as the variable NUMBANET_CUDA_TILES says, off where it is not 1. They are off by default because they have been checked
    by an emulator and the compiler only; ``python benchmarks/gpu_suite.py`` proves them on a GPU. Simulators run the plain kernels.
    """
    _choose().set_tiles(enabled)


def are_tiles_enabled() -> bool:
    """Whether tile programs are switched on; see :func:`set_tiles`."""
    return _choose().use_tiles()


def manual_seed_all(seed: int) -> None:
    """The same as :func:`numbanet.manual_seed`: one generator serves all devices."""
    manual_seed(seed)


def _backend(device):
    name = "cuda" if device is None else f"cuda:{device}" if isinstance(device, int) else str(device)
    if name.partition(":")[0] != "cuda":
        raise BackendError(f"numbanet.cuda: expected a GPU, such as 'cuda:0' or its number, received {name!r}")
    return get_backend(name)


def _allocator(device):
    return _backend(device).allocator


def _choose():
    from numbanet.backends.cuda.tiles import choose
    return choose


def _hardware():
    from numbanet.backends.cuda import hardware
    return hardware
