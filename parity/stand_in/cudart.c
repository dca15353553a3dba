/* CUDA's runtime. The device's memory is the host's, of which pages that nobody writes cost nothing; so that a large
   model needs few of them, the device fills and copies within its memory no more than LARGE at a time. What is put on a
   stream is done at once. STAND_IN_MEMORY: the device's memory in bytes. */
#define _GNU_SOURCE
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#include "stand_in.h"

enum { SUCCESS, INVALID_VALUE, OUT_OF_MEMORY };
enum { WITHIN_DEVICE = 3 }; /* cudaMemcpyKind */
enum { LARGE = 1 << 20 };   /* bytes */
enum { PAGE = 4096 };       /* bytes in front of each allocation, which hold its size */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static size_t allocated, peak; /* bytes */

static size_t device_memory(void) {
  const char *given = getenv("STAND_IN_MEMORY");
  return given ? strtoull(given, NULL, 10) : 80ull << 30;
}

void stand_in_memory(long *now, long *most) {
  *now = allocated;
  *most = peak;
}

int cudaMalloc(void **memory, size_t size) {
  COUNT("cudaMalloc");
  *memory = NULL;
  pthread_mutex_lock(&lock);
  int fits = allocated + size <= device_memory();
  if (fits)
    allocated += size;
  if (allocated > peak)
    peak = allocated;
  pthread_mutex_unlock(&lock);
  if (!fits)
    return OUT_OF_MEMORY;
  char *mapped = mmap(NULL, PAGE + size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED)
    return OUT_OF_MEMORY;
  *(size_t *)mapped = size;
  *memory = mapped + PAGE;
  return SUCCESS;
}

int cudaFree(void *memory) {
  COUNT("cudaFree");
  if (!memory)
    return SUCCESS;
  char *mapped = (char *)memory - PAGE;
  size_t size = *(size_t *)mapped;
  munmap(mapped, PAGE + size);
  pthread_mutex_lock(&lock);
  allocated -= size;
  pthread_mutex_unlock(&lock);
  return SUCCESS;
}

int cudaMemGetInfo(size_t *available, size_t *total) {
  *total = device_memory();
  *available = *total - allocated;
  return SUCCESS;
}

int cudaHostAlloc(void **memory, size_t size, unsigned flags) {
  COUNT("cudaHostAlloc");
  *memory = malloc(size);
  return *memory ? SUCCESS : OUT_OF_MEMORY;
}

int cudaFreeHost(void *memory) {
  COUNT("cudaFreeHost");
  free(memory);
  return SUCCESS;
}

static int copy(void *target, const void *source, size_t size, int direction) {
  if (size && !(target && source))
    return INVALID_VALUE;
  if (size <= LARGE || direction != WITHIN_DEVICE)
    memmove(target, source, size);
  return SUCCESS;
}

int cudaMemcpy(void *target, const void *source, size_t size, int direction) {
  COUNT("cudaMemcpy");
  return copy(target, source, size, direction);
}

int cudaMemcpyAsync(void *target, const void *source, size_t size, int direction, void *stream) {
  COUNT("cudaMemcpyAsync");
  return copy(target, source, size, direction);
}

static int fill(void *memory, int value, size_t size) {
  if (size && !memory)
    return INVALID_VALUE;
  if (size <= LARGE)
    memset(memory, value, size);
  return SUCCESS;
}

int cudaMemset(void *memory, int value, size_t size) {
  COUNT("cudaMemset");
  return fill(memory, value, size);
}

int cudaMemsetAsync(void *memory, int value, size_t size, void *stream) {
  COUNT("cudaMemsetAsync");
  return fill(memory, value, size);
}

int cudaEventElapsedTime(float *milliseconds, void *from, void *to) {
  *milliseconds = 1;
  return SUCCESS;
}

int cudaGetDeviceCount(int *count) {
  *count = 1;
  return SUCCESS;
}

const char *cudaGetErrorName(int error) { return error == OUT_OF_MEMORY ? "cudaErrorMemoryAllocation" : "an error"; }

const char *cudaGetErrorString(int error) { return error == OUT_OF_MEMORY ? "out of memory" : "an error"; }

/* cudaDeviceProp as far as MindSpore reads it; the caller's is longer. */
struct properties {
  char name[256], identifiers[28];
  size_t total_memory, block_memory;
  int block_registers, warp;
  size_t pitch;
  int block_threads, block_size[3], grid_size[3], clock;
  size_t constant_memory;
  int major, minor;
  size_t texture_alignment, texture_pitch_alignment;
  int overlaps_copies, multiprocessors;
};

int cudaGetDeviceProperties(struct properties *properties, int device) {
  *properties = (struct properties){
    .name = "stand-in GPU", .total_memory = device_memory(), .block_memory = 48 << 10, .block_registers = 1 << 16,
    .warp = 32, .block_threads = 1024, .block_size = {1024, 1024, 64}, .grid_size = {0x7fffffff, 65535, 65535},
    .major = 8, .overlaps_copies = 1, .multiprocessors = 108,
  };
  return SUCCESS;
}
