"""numbanet doctor"""

from __future__ import annotations

import json
import platform

EXAMPLE = "  numbanet doctor --json"


def configure(parser) -> None:
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def examine() -> dict[str, str]:
    """What a report of a problem should contain, as text by name."""
    from importlib.metadata import PackageNotFoundError, version

    from numbanet._version import __version__
    from numbanet.backends import available_backends
    from numbanet.backends.cpu import compile, hardware, kernel_cache, threads
    caches, resolved = hardware.cache_sizes(), threads.resolved()
    found = {"numbanet": f"{__version__} on Python {platform.python_version()}, {platform.platform()}"}
    found["processor"] = f"{hardware.cpu_model()} ({hardware.cpu_name()}), {hardware.available_cores()} cores for this process"
    found["SIMD"] = (f"{hardware.simd_width()} float32 lanes, {hardware.vector_registers()} registers, "
                     f"{'fused multiply-add' if hardware.has_fma() else 'no fused multiply-add'}")
    found["caches"] = f"L1 {caches.l1 // 1024} KB, L2 {caches.l2 // 1024} KB, L3 {caches.l3 // 1024} KB"
    found["threads"] = f"{threads.get_num_threads()}: {resolved.reason}"
    found["threading layer"] = threads.start()
    folder = kernel_cache.cache_folder()
    files = [f for f in folder.rglob("*") if f.is_file()] if folder.is_dir() else []
    found["kernel cache"] = f"{folder}: {len(files)} files, {sum(f.stat().st_size for f in files) / 1e6:.1f} MB"
    statistics = compile.statistics
    found["this process"] = f"{statistics.hits} kernels from the cache, {statistics.misses} compiled in {statistics.seconds:.1f} s"
    for name, reason in available_backends().items():
        found[f"device {name}"] = reason.removeprefix(f"device {name!r}: ") or "works"
    found |= _cuda()
    for package in ("numba", "llvmlite", "numpy", "pillow", "safetensors", "torch", "onnxruntime", "tbb", "numba-cuda", "cuda-core",
                    "cuda-bindings", "nvidia-nvjitlink"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _cuda() -> dict[str, str]:
    """GPUs, driver and toolkit, and how far the CUDA backend can be trusted."""
    from numbanet.backends.cuda import TESTED, hardware
    version = hardware.driver_version()
    found = {"NVIDIA driver": "none" if version is None else f"supports CUDA {hardware.dotted(version)}"}
    toolkit = hardware.installed_toolkit()
    found["CUDA packages"] = ("none; pip install 'numbanet[" + hardware.fitting_extra(version) + "]' where there is a GPU"
                              if toolkit is None else f"CUDA {toolkit}")
    for index, gpu in enumerate(hardware.gpus()):
        found[f"GPU {index}"] = f"{gpu.name}, {gpu.architecture}, {gpu.memory / 1e9:.1f} GB, {gpu.multiprocessors} multiprocessors"
    found["CUDA kernel cache"] = _cubins()
    found["CUDA backend"] = TESTED
    return found


def _cubins() -> str:
    """The folder of machine code for GPUs, and whether it can be filled."""
    import os

    from numbanet.backends.cuda import cubin
    folder = cubin.cache_folder()
    there = next(path for path in (folder, *folder.parents) if path.exists())       # it is made when the first kernel is kept
    if not there.is_dir() or not os.access(there, os.W_OK):
        return f"{folder}: cannot be written, so that every process compiles; NUMBANET_CACHE_DIR names another folder"
    files = list(folder.glob("*.cubin"))
    return f"{folder}: {len(files)} kernels, {sum(f.stat().st_size for f in files) / 1e6:.1f} MB"


def run(arguments) -> int:
    from numbanet.backends import get_backend
    from numbanet.dtypes import float32
    backend = get_backend("cpu")
    backend.relu_forward(backend.full((4,), -1.0, float32))         # one kernel, so that cache and compiler are seen at work
    found = examine()
    if arguments.json:
        print(json.dumps(found, indent=2))
        return 0
    width = max(map(len, found))
    for name, text in found.items():
        print(f"{name.ljust(width)}  {text}")
    return 0
