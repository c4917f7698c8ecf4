/* Copyright (c) 2026 the aikit.fleet authors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Stands in for libcudart, libcublas and libcuda, so that llama.cpp's real CUDA backend runs on a machine without a GPU as far as
 * memory is concerned: it asks for devices, sizes and supported operations, and allocates. Memory of a device is address space that
 * nobody may touch; copies and kernels do nothing. What the backend decides (paddings, which operation it takes, how large its
 * buffers are) is its own code, so its buffer lines are those of a real card of the pretended kind.
 *
 * PRETEND_GPUS=2 PRETEND_MIB=81559 PRETEND_CC=90 choose the cards.
 */
#define _GNU_SOURCE
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static _Thread_local int current;
static char something[4096];

static long number(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text && *text ? atol(text) : otherwise;
}

static int reserve(void **where, size_t size, int access) {
    void *memory = mmap(NULL, size ? size : 1, access, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return 2; /* out of memory */
    *where = memory;
    return 0;
}

int cudaGetDeviceCount(int *count) { *count = (int)number("PRETEND_GPUS", 1); return 0; }
int cudaGetDevice(int *device) { *device = current; return 0; }
int cudaSetDevice(int device) { current = device; return 0; }

/* struct cudaDeviceProp by offset: the fields that the backend reads, in CUDA 12 and 13 */
#if CUDART >= 13
enum { PROCESSORS = 384, INTEGRATED = 388, BUS = 568, ENGINES = 584, THREADS = 604, SHARED_PROCESSOR = 624, REGISTERS = 632, SHARED_OPTIN = 672 };
#else
enum { PROCESSORS = 388, INTEGRATED = 396, BUS = 584, ENGINES = 600, THREADS = 624, SHARED_PROCESSOR = 640, REGISTERS = 648, SHARED_OPTIN = 696 };
#endif
enum { TOTAL = 288, SHARED_BLOCK = 296, REGISTERS_BLOCK = 304, WARP = 308, THREADS_BLOCK = 320, MAJOR = 360, MINOR = 364, ALL = 1000 };

static void put_int(char *at, int value) { memcpy(at, &value, sizeof value); }
static void put_size(char *at, size_t value) { memcpy(at, &value, sizeof value); }

int cudaGetDeviceProperties_v2(char *properties, int device) {
    int cc = (int)number("PRETEND_CC", 90);
    size_t optin = cc == 90 || cc == 100 ? 232448 : cc == 80 ? 166912 : cc > 80 ? 101376 : cc >= 75 ? 65536 : 98304;
    memset(properties, 0, ALL);
    snprintf(properties, 256, "Pretended GPU %d", device);
    put_size(properties + TOTAL, (size_t)number("PRETEND_MIB", 1048576) << 20);
    put_size(properties + SHARED_BLOCK, 49152);
    put_int(properties + REGISTERS_BLOCK, 65536);
    put_int(properties + WARP, 32);
    put_int(properties + THREADS_BLOCK, 1024);
    put_int(properties + MAJOR, cc / 10);
    put_int(properties + MINOR, cc % 10);
    put_int(properties + PROCESSORS, (int)number("PRETEND_SM", 132));
    put_int(properties + INTEGRATED, 0);
    put_int(properties + BUS, device + 1);
    put_int(properties + ENGINES, 2);
    put_int(properties + THREADS, 2048);
    put_size(properties + SHARED_PROCESSOR, optin + 1024);
    put_int(properties + REGISTERS, 65536);
    put_size(properties + SHARED_OPTIN, optin);
    return 0;
}
int cudaGetDeviceProperties(char *properties, int device) { return cudaGetDeviceProperties_v2(properties, device); }
int cudaDeviceGetAttribute(int *value, int attribute, int device) { (void)attribute; (void)device; *value = 0; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { (void)attribute; (void)device; *value = 0; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuMemGetAllocationGranularity(size_t *size, const void *properties, int option) { (void)properties; (void)option; *size = 2097152; return 0; }
int cudaDeviceGetPCIBusId(char *text, int length, int device) { snprintf(text, (size_t)length, "0000:%02x:00.0", device + 1); return 0; }
int cudaMemGetInfo(size_t *available, size_t *total) { *total = (size_t)number("PRETEND_MIB", 1048576) << 20; *available = *total; return 0; }
int cudaDeviceCanAccessPeer(int *can, int one, int other) { (void)one; (void)other; *can = 0; return 0; }

int cudaMalloc(void **where, size_t size) { return reserve(where, size, PROT_NONE); }
int cudaMallocManaged(void **where, size_t size, unsigned flags) { (void)flags; return reserve(where, size, PROT_NONE); }
int cudaMallocHost(void **where, size_t size) { return reserve(where, size, PROT_READ | PROT_WRITE); }
int cudaHostAlloc(void **where, size_t size, unsigned flags) { (void)flags; return reserve(where, size, PROT_READ | PROT_WRITE); }
int cudaHostGetDevicePointer(void **device, void *host, unsigned flags) { (void)flags; *device = host; return 0; }

int cudaStreamCreateWithFlags(void **stream, unsigned flags) { (void)flags; *stream = something; return 0; }
int cudaEventCreateWithFlags(void **event, unsigned flags) { (void)flags; *event = something; return 0; }
int cudaStreamIsCapturing(void *stream, int *status) { (void)stream; *status = 0; return 0; }
int cublasCreate_v2(void **handle) { *handle = something; return 0; }

const char *cudaGetErrorString(int error) { (void)error; return "pretended error"; }
const char *cublasGetStatusString(int status) { (void)status; return "pretended status"; }

void **__cudaRegisterFatBinary(void *binary) { (void)binary; static void *handle; return &handle; }
/* struct cudaFuncAttributes: three sizes, then maxThreadsPerBlock, numRegs, ptxVersion, binaryVersion */
int cudaFuncGetAttributes(char *attributes, const void *function) {
    (void)function;
    memset(attributes, 0, 48);
    put_int(attributes + 24, 1024);
    put_int(attributes + 32, (int)number("PRETEND_CC", 90));
    put_int(attributes + 36, (int)number("PRETEND_CC", 90));
    return 0;
}
int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *function, int threads, size_t shared, unsigned flags) {
    (void)function; (void)threads; (void)shared; (void)flags;
    *blocks = 1;
    return 0;
}
