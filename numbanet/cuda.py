"""What scripts ask `torch.cuda`: whether there is a GPU, which, and how its memory is used."""

from __future__ import annotations

from numbanet.backends import get_backend
from numbanet.errors import BackendError
from numbanet.random import manual_seed

__all__ = ["are_tiles_enabled", "check_guards", "device_count", "empty_cache", "get_device_capability", "get_device_name",
           "is_available", "manual_seed", "manual_seed_all", "max_memory_allocated", "max_memory_reserved", "mem_get_info",
           "memory_allocated", "memory_reserved", "reset_peak_memory_stats", "set_memory_limit", "set_tiles", "synchronize"]


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
