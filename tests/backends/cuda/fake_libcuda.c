/* A driver's library over host memory: what `cuda.bindings` and `cuda.core` load where LD_LIBRARY_PATH names its folder as libcuda.so.1.

   Copies, fills, memory and the order of calls are real; kernels are launched, not run: their parameters are read, as many as the cubin's
   declaration says, so that a launch whose numbers are laid out wrongly is seen by the tools that look for wrong reads. Built by
   `library.py` with the C compiler of the machine. One GPU, of the architecture in FAKE_CUDA_ARCH (90), with FAKE_CUDA_MEGABYTES (4096). */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int CUresult;
enum { OK = 0, INVALID = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_IMAGE = 200, NOT_FOUND = 500 };

static size_t used;
static unsigned long launches, graphs, parameters_read;
static _Thread_local void *context;

static int number(const char *name, int usual) { const char *text = getenv(name); return text ? atoi(text) : usual; }
static size_t total(void) { return (size_t)number("FAKE_CUDA_MEGABYTES", 4096) << 20; }

CUresult cuInit(unsigned flags) { return number("FAKE_CUDA_INIT", 0); }
CUresult cuDriverGetVersion(int *version) { *version = number("FAKE_CUDA_VERSION", 13000); return OK; }
CUresult cuDeviceGetCount(int *count) { *count = number("FAKE_CUDA_GPUS", 1); return OK; }
CUresult cuDeviceGet(int *device, int ordinal) {
    if (ordinal >= number("FAKE_CUDA_GPUS", 1)) return 101;
    *device = ordinal;
    return OK;
}
CUresult cuDeviceGetName(char *name, int length, int device) { snprintf(name, length, "Driver without a GPU"); return OK; }
CUresult cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = total(); return OK; }
CUresult cuDeviceGetUuid_v2(char *uuid, int device) { memset(uuid, device, 16); return OK; }
CUresult cuDeviceGetAttribute(int *value, int attribute, int device) {
    int arch = number("FAKE_CUDA_ARCH", 90);
    *value = attribute == 16 ? 132 : attribute == 75 ? arch / 10 : attribute == 76 ? arch % 10 : 1;
    return OK;
}
CUresult cuDevicePrimaryCtxRetain(void **made, int device) { *made = (void *)(intptr_t)(0x100 + device); return OK; }
CUresult cuDevicePrimaryCtxRelease_v2(int device) { return OK; }
CUresult cuCtxSetCurrent(void *given) { context = given; return OK; }
CUresult cuCtxGetCurrent(void **found) { *found = context; return OK; }
CUresult cuCtxGetDevice(int *device) { *device = (int)(intptr_t)context - 0x100; return context ? OK : 201; }
CUresult cuCtxPushCurrent_v2(void *given) { context = given; return OK; }
CUresult cuCtxPopCurrent_v2(void **found) { *found = context; context = NULL; return OK; }
CUresult cuCtxSynchronize(void) { return OK; }

/* Memory: the size stands before each block. */
CUresult cuMemAlloc_v2(uint64_t *address, size_t bytes) {
    if (!context) return 201;
    if (!bytes) return INVALID;
    if (used + bytes > total()) return OUT_OF_MEMORY;
    char *block = aligned_alloc(256, (bytes + 511) / 256 * 256);
    if (!block) return OUT_OF_MEMORY;
    *(size_t *)block = bytes;
    memset(block + 256, 0, bytes);
    used += bytes;
    *address = (uint64_t)(uintptr_t)(block + 256);
    return OK;
}
CUresult cuMemFree_v2(uint64_t address) {
    char *block = (char *)(uintptr_t)address - 256;
    used -= *(size_t *)block;
    free(block);
    return OK;
}
CUresult cuMemGetInfo_v2(size_t *available, size_t *all) { *all = total(); *available = total() - used; return OK; }
CUresult cuMemHostAlloc(void **address, size_t bytes, unsigned flags) { *address = malloc(bytes ? bytes : 1); return OK; }
CUresult cuMemFreeHost(void *address) { free(address); return OK; }
CUresult cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *stream) {
    memcpy((void *)(uintptr_t)to, from, bytes);
    return OK;
}
CUresult cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *stream) {
    memcpy(to, (void *)(uintptr_t)from, bytes);
    return OK;
}
CUresult cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void *stream) {
    memmove((void *)(uintptr_t)to, (void *)(uintptr_t)from, bytes);
    return OK;
}
CUresult cuMemsetD8Async(uint64_t address, unsigned char value, size_t bytes, void *stream) {
    memset((void *)(uintptr_t)address, value, bytes);
    return OK;
}

/* Streams, events, graphs: everything is done at once. */
static uintptr_t handles = 0x1000;
#define MADE(type) CUresult type(void **made, unsigned flags) { *made = (void *)(handles += 16); return OK; }
MADE(cuStreamCreate)
MADE(cuEventCreate)
CUresult cuStreamDestroy_v2(void *stream) { return OK; }
CUresult cuStreamSynchronize(void *stream) { return OK; }
CUresult cuStreamQuery(void *stream) { return OK; }
CUresult cuStreamWaitEvent(void *stream, void *event, unsigned flags) { return OK; }
CUresult cuStreamIsCapturing(void *stream, int *status) { *status = 0; return OK; }
CUresult cuStreamBeginCapture_v2(void *stream, int mode) { return OK; }
CUresult cuStreamEndCapture(void *stream, void **graph) { *graph = (void *)(handles += 16); return OK; }
CUresult cuGraphInstantiateWithFlags(void **made, void *graph, unsigned long long flags) { *made = (void *)(handles += 16); return OK; }
CUresult cuGraphDestroy(void *graph) { return OK; }
CUresult cuGraphExecDestroy(void *graph) { return OK; }
CUresult cuGraphLaunch(void *graph, void *stream) { graphs++; return OK; }
CUresult cuEventRecord(void *event, void *stream) { return OK; }
CUresult cuEventSynchronize(void *event) { return OK; }
CUresult cuEventQuery(void *event) { return OK; }
CUresult cuEventDestroy_v2(void *event) { return OK; }
CUresult cuEventElapsedTime_v2(float *milliseconds, void *first, void *second) { *milliseconds = 1; return OK; }
CUresult cuEventElapsedTime(float *milliseconds, void *first, void *second) { *milliseconds = 1; return OK; }

/* Kernels: an image has to be machine code, and to name the symbol. How many parameters it has stands in its section of constants. */
struct function { size_t parameters; int shared; };
struct module { const char *image; size_t size; };

static const char *section(const char *image, const char *kind, const char *name) {         /* its header, or NULL */
    uint16_t each = *(uint16_t *)(image + 58), count = *(uint16_t *)(image + 60), names = *(uint16_t *)(image + 62);
    const char *headers = image + *(uint64_t *)(image + 40), *texts = image + *(uint64_t *)(headers + each * names + 24);
    for (int i = 0; i < count; i++) {
        const char *text = texts + *(uint32_t *)(headers + each * i);
        if (!strncmp(text, kind, strlen(kind)) && !strcmp(text + strlen(kind), name)) return headers + each * i;
    }
    return NULL;
}
static size_t size_of(const char *image) {              /* of an ELF file of 64 bits: where its sections' headers end */
    uint64_t at = *(uint64_t *)(image + 40);
    uint16_t each = *(uint16_t *)(image + 58), count = *(uint16_t *)(image + 60);
    return at + (uint64_t)each * count;
}
CUresult cuModuleLoadData(void **made, const char *image) {
    if (memcmp(image, "\177ELF", 4)) return INVALID_IMAGE;
    struct module *module = malloc(sizeof *module);
    module->size = size_of(image);
    module->image = memcpy(malloc(module->size), image, module->size);
    *made = module;
    return OK;
}
CUresult cuModuleGetFunction(void **made, struct module *module, const char *name) {
    if (!section(module->image, ".text.", name)) return NOT_FOUND;
    struct function *function = calloc(1, sizeof *function);
    /* An attribute is a format, a number and a length; 04 17 is one parameter of the kernel. */
    const char *info = section(module->image, ".nv.info.", name);
    if (info) {
        const char *at = module->image + *(uint64_t *)(info + 24), *end = at + *(uint64_t *)(info + 32);
        while (at + 4 <= end) {
            if (at[0] == 4 && at[1] == 0x17) function->parameters++;
            at += 4 + (at[0] == 4 ? *(uint16_t *)(at + 2) : 0);
        }
    }
    *made = function;
    return OK;
}
CUresult cuModuleUnload(void *module) { return OK; }
CUresult cuFuncSetAttribute(struct function *function, int attribute, int value) {
    if (attribute != 8 || value > 227 * 1024) return INVALID;
    function->shared = value;
    return OK;
}
CUresult cuFuncGetAttribute(int *value, int attribute, struct function *function) { *value = attribute == 0 ? 1024 : 0; return OK; }
static volatile unsigned seen;
CUresult cuLaunchKernel(struct function *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                        unsigned shared, void *stream, void **parameters, void **extra) {
    if (!context) return 201;
    if (!gx || !gy || !gz || gy > 65535 || gz > 65535 || !bx || bx * by * bz > 1024) return INVALID;
    if (shared > 48 * 1024 && (int)shared > function->shared) return INVALID;
    for (size_t i = 0; i < function->parameters; i++) seen += *(volatile unsigned char *)parameters[i];
    parameters_read += function->parameters;
    launches++;
    return OK;
}
unsigned long fake_launches(void) { return launches; }
unsigned long fake_graphs(void) { return graphs; }
unsigned long fake_parameters(void) { return parameters_read; }

/* What `cuda.core` calls instead. */
CUresult cuLibraryLoadData(void **made, const char *image, void *a, void *b, unsigned c, void *d, void *e, unsigned f) {
    return cuModuleLoadData(made, image);
}
CUresult cuLibraryUnload(void *library) { return OK; }
CUresult cuLibraryGetKernel(void **made, void *library, const char *name) { return cuModuleGetFunction(made, library, name); }
CUresult cuKernelGetFunction(void **made, void *kernel) { *made = kernel; return OK; }
CUresult cuKernelGetAttribute(int *value, int attribute, void *kernel, int device) { *value = attribute == 0 ? 1024 : 0; return OK; }
CUresult cuKernelSetAttribute(int attribute, int value, struct function *kernel, int device) {
    return cuFuncSetAttribute(kernel, attribute, value);
}
struct config { unsigned gx, gy, gz, bx, by, bz, shared; void *stream, *attributes; unsigned count; };
CUresult cuLaunchKernelEx(const struct config *c, struct function *function, void **parameters, void **extra) {
    return cuLaunchKernel(function, c->gx, c->gy, c->gz, c->bx, c->by, c->bz, c->shared, c->stream, parameters, extra);
}

CUresult cuGetErrorName(int status, const char **text) { *text = "CUDA_ERROR"; return OK; }
CUresult cuGetErrorString(int status, const char **text) { *text = "an error of the driver without a GPU"; return OK; }
CUresult cuGetProcAddress_v2(const char *symbol, void **found, int version, uint64_t flags, int *status) {
    static const char *ends[] = {"_v2", "", "WithFlags", NULL};
    char name[200];
    *found = NULL;
    for (int i = 0; ends[i] && !*found; i++) {
        snprintf(name, sizeof name, "%s%s", symbol, ends[i]);
        *found = dlsym(RTLD_DEFAULT, name);
        if (!*found) {
            static void *self;
            if (!self) { Dl_info info; dladdr((void *)cuInit, &info); self = dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD); }
            *found = dlsym(self, name);
        }
    }
    if (status) *status = *found ? 0 : 1;
    return *found ? OK : NOT_FOUND;
}
CUresult cuGetProcAddress(const char *symbol, void **found, int version, uint64_t flags) {
    return cuGetProcAddress_v2(symbol, found, version, flags, NULL);
}
