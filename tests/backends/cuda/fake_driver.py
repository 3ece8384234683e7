"""The part of the CUDA driver's API that the backend calls, over host memory: what can be tested of `driver.py` without a GPU.

Signatures are those of `cuda.bindings.driver`; a test compares the names. Transfers are done when their stream is waited for, in order,
so that code which reads too early sees what was there before.
"""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

SUCCESS, OUT_OF_MEMORY, NOT_READY, INVALID = (SimpleNamespace(name=name) for name in (
    "CUDA_SUCCESS", "CUDA_ERROR_OUT_OF_MEMORY", "CUDA_ERROR_NOT_READY", "CUDA_ERROR_INVALID_VALUE"))


class FakeDriver:
    """One GPU of `total` bytes."""

    CUresult = SimpleNamespace(CUDA_SUCCESS=SUCCESS, CUDA_ERROR_OUT_OF_MEMORY=OUT_OF_MEMORY, CUDA_ERROR_NOT_READY=NOT_READY)
    CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL=1)
    CUfunction_attribute = SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES="shared")
    CUstream_flags = SimpleNamespace(CU_STREAM_NON_BLOCKING=1)

    def __init__(self, total: int = 1 << 30):
        self.total, self.blocks, self.hosts, self.queue, self.done, self.asked, self.calls = total, {}, {}, [], 0, 0, []
        self.waits = []
        self.attributes, self.capturing, self.graphs, self.destroyed, self.streams = {}, {}, 0, 0, 6
        self.launched, self.on_launch = [], lambda parameters: None

    def __getattribute__(self, name):
        if name.startswith("cu"):
            object.__getattribute__(self, "calls").append(name)
        return object.__getattribute__(self, name)

    def _ask(self, work) -> int:
        self.queue.append(work)
        self.asked += 1
        return self.asked

    def _run(self, until: int) -> None:
        while self.done < until:
            self.queue.pop(0)()
            self.done += 1

    def _inside(self, pointer: int, nbytes: int) -> bool:
        return any(start <= pointer and pointer + nbytes <= start + len(memory) for start, memory in self.blocks.items())

    def cuInit(self, flags):
        return (SUCCESS,)

    def cuDeviceGet(self, ordinal):
        return SUCCESS, ordinal

    def cuDevicePrimaryCtxRetain(self, dev):
        return SUCCESS, "context"

    def cuCtxSetCurrent(self, ctx):
        return (SUCCESS,)

    def cuStreamCreate(self, flags):
        self.streams += 1
        return SUCCESS, self.streams

    def cuMemAlloc(self, bytesize):
        if sum(map(len, self.blocks.values())) + bytesize > self.total:
            return OUT_OF_MEMORY, 0
        memory = (ctypes.c_uint8 * bytesize)()
        self.blocks[ctypes.addressof(memory)] = memory
        return SUCCESS, ctypes.addressof(memory)

    def cuMemFree(self, dptr):
        self._run(self.asked)
        return (SUCCESS,) if self.blocks.pop(dptr, None) is not None else (INVALID,)

    def cuMemGetInfo(self):
        return SUCCESS, self.total - sum(map(len, self.blocks.values())), self.total

    def cuMemHostAlloc(self, bytesize, flags):
        memory = (ctypes.c_uint8 * bytesize)()
        self.hosts[ctypes.addressof(memory)] = memory
        return SUCCESS, ctypes.addressof(memory)

    def cuMemFreeHost(self, p):
        return (SUCCESS if self.hosts.pop(p, None) is not None else INVALID,)

    def cuMemcpyHtoDAsync(self, destination, source, count, stream):
        if not self._inside(destination, count):
            return (INVALID,)
        self._ask(lambda: ctypes.memmove(destination, source, count))
        return (SUCCESS,)

    def cuMemcpyDtoHAsync(self, destination, source, count, stream):
        if not self._inside(source, count):
            return (INVALID,)
        self._ask(lambda: ctypes.memmove(destination, source, count))
        return (SUCCESS,)

    def cuMemsetD8Async(self, destination, value, count, stream):
        if not self._inside(destination, count):
            return (INVALID,)
        self._ask(lambda: ctypes.memset(destination, value, count))
        return (SUCCESS,)

    def cuStreamQuery(self, stream):
        return (SUCCESS,) if self.done >= self.asked else (NOT_READY,)

    def cuStreamWaitEvent(self, stream, event, flags):
        self.waits.append((stream, event[1]))
        return (SUCCESS,)

    def cuEventDestroy(self, event):
        return (SUCCESS,)

    def cuEventElapsedTime(self, first, second):
        return SUCCESS, float(second[0] - first[0])

    def cuStreamDestroy(self, stream):
        return (SUCCESS,)

    def cuStreamBeginCapture(self, stream, mode):
        if stream in self.capturing:
            return (INVALID,)
        self.capturing[stream] = []
        return (SUCCESS,)

    def cuStreamEndCapture(self, stream):
        return SUCCESS, self.capturing.pop(stream)

    def cuGraphInstantiate(self, graph, flags):
        return SUCCESS, tuple(graph)

    def cuGraphDestroy(self, graph):
        return (SUCCESS,)

    def cuGraphLaunch(self, executable, stream):
        self.graphs += 1
        for work in executable:
            work(stream)
        return (SUCCESS,)

    def cuGraphExecDestroy(self, executable):
        self.destroyed += 1
        return (SUCCESS,)

    def cuMemcpyDtoDAsync(self, destination, source, count, stream):
        if not self._inside(destination, count) or not self._inside(source, count):
            return (INVALID,)
        self._ask(lambda: ctypes.memmove(destination, source, count))
        return (SUCCESS,)

    def cuModuleLoadData(self, image):
        return SUCCESS, image

    def cuModuleGetFunction(self, module, name):
        return SUCCESS, (module, name)

    def cuFuncSetAttribute(self, function, attribute, value):
        self.attributes[function] = attribute, value
        return (SUCCESS,)

    def cuLaunchKernel(self, function, gx, gy, gz, bx, by, bz, shared, stream, parameters, extra):
        def launch(stream):
            self.launched.append((function, (gx, gy, gz), (bx, by, bz), shared, stream, parameters))
            self.on_launch(parameters)
        if stream in self.capturing:
            self.capturing[stream].append(launch)
        else:
            launch(stream)
        return (SUCCESS,)

    def cuStreamSynchronize(self, stream):
        self._run(self.asked)
        return (SUCCESS,)

    def cuEventCreate(self, flags):
        return SUCCESS, [0, None]

    def cuEventRecord(self, event, stream):
        event[:] = self.asked, stream
        return (SUCCESS,)

    def cuEventQuery(self, event):
        return (SUCCESS,) if self.done >= event[0] else (NOT_READY,)

    def cuEventSynchronize(self, event):
        self._run(event[0])
        return (SUCCESS,)

    def cuGetErrorString(self, error):
        return SUCCESS, error.name.encode()
