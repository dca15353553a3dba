// CUDA's runtime. The device's memory is the host's, where pages that nobody writes cost nothing. Work put on a stream is
// done at once. STAND_IN_MEMORY: the device's memory in bytes.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <string>

#include "locked.h"
#include "machine.h"
#include "stand_in.h"
#include "values.h"

namespace {

enum Error { SUCCESS, INVALID_VALUE, OUT_OF_MEMORY, INVALID_DEVICE = 101 };
enum { TO_DEVICE = 1, TO_HOST, WITHIN_DEVICE };  // cudaMemcpyKind
constexpr size_t LARGE = 1 << 20;  // bytes
constexpr size_t PAGE = 4096;      // bytes in front of each allocation, which hold its size

std::mutex lock;
size_t allocated, peak;  // bytes
stand_in::LockedMemory of_host;

size_t device_memory() {
  const char *given = getenv("STAND_IN_MEMORY");
  return given ? strtoull(given, nullptr, 10) : 80ull << 30;
}

// Takes `size` bytes of the device's memory, if it has them.
bool take(size_t size) {
  std::lock_guard<std::mutex> guard(lock);
  if (allocated + size > device_memory()) return false;
  allocated += size;
  peak = std::max(peak, allocated);
  return true;
}

void give_back(size_t size) {
  std::lock_guard<std::mutex> guard(lock);
  allocated -= size;
}

// Whether so much is written within the device. Where nothing is computed, what is large stays as it is: a large model
// then needs few pages.
bool written(size_t size) { return size <= LARGE || stand_in::computes(); }

int pin(const void *memory, size_t size) {
  of_host.add(memory, size);
  return SUCCESS;
}

int unpin(const void *memory) {
  of_host.remove(memory);
  return SUCCESS;
}

std::string bytes(size_t size) { return "uint8[" + std::to_string(size) + ']'; }

int copy(const char *name, void *target, const void *source, size_t size, int direction) {
  if (size && !(target && source)) return INVALID_VALUE;
  static const char *directions[] = {"host to host", "to the device", "to the host", "on the device", "anywhere"};
  const char *from = direction == TO_DEVICE && of_host.holds(source) ? " from pinned memory" : "";
  stand_in::count_launch(name, bytes(size) + ' ' + directions[direction] + from);
  if (direction == TO_HOST && !stand_in::computes()) {
    memset(target, 0, size);  // of what has not been computed; the memory holds other bytes, which may be no numbers
  } else if (*from ? stand_in::computes() : direction != WITHIN_DEVICE || written(size)) {
    memmove(target, source, size);  // unless the device does it, whose time is not the host's
  }
  return SUCCESS;
}

int fill(const char *name, void *memory, int value, size_t size) {
  if (size && !memory) return INVALID_VALUE;
  stand_in::count_launch(name, bytes(size));
  if (written(size)) memset(memory, value, size);
  return SUCCESS;
}

// What the driver does for a newer GPU when the first call needs a context: it translates MindSpore's modules one by
// one, each into a file of its cache, unless that is there.
void translate() {
  constexpr int MODULES = 407, SIZE = 1000, MICROSECONDS = 3000;  // really 0.9 MB and 0.5 s
  const char *home = getenv("HOME"), *chosen = getenv("CUDA_CACHE_PATH");
  std::filesystem::path cache = chosen ? chosen : std::string(home ? home : "") + "/.nv/ComputeCache";
  std::error_code failed;
  std::filesystem::create_directories(cache, failed);
  for (int module = 0; module < MODULES; module++) {
    auto file = cache / std::to_string(module);
    if (std::filesystem::exists(file, failed)) continue;
    usleep(MICROSECONDS);
    std::ofstream(file) << std::string(SIZE, 'x');
  }
}

// Before the first call that works on the device.
void start() {
  static std::once_flag started;
  std::call_once(started, [] {
    if (capability() > COMPILED) translate();
  });
}

// cudaDeviceProp as far as MindSpore reads it; the caller's is longer.
struct Properties {
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

}  // namespace

extern "C" {

void stand_in_memory(long *now, long *most) {
  *now = allocated;
  *most = peak;
}

int cudaMalloc(void **memory, size_t size) {
  COUNT("cudaMalloc");
  start();
  *memory = nullptr;
  if (!take(size)) return OUT_OF_MEMORY;
  void *mapped = mmap(nullptr, PAGE + size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) {
    give_back(size);
    return OUT_OF_MEMORY;
  }
  *static_cast<size_t *>(mapped) = size;
  *memory = static_cast<char *>(mapped) + PAGE;
  return SUCCESS;
}

int cudaFree(void *memory) {
  COUNT("cudaFree");
  if (!memory) return SUCCESS;
  char *mapped = static_cast<char *>(memory) - PAGE;
  size_t size = *reinterpret_cast<size_t *>(mapped);
  munmap(mapped, PAGE + size);
  give_back(size);
  return SUCCESS;
}

int cudaStreamCreateWithFlags(void **stream, unsigned flags) {
  COUNT("cudaStreamCreateWithFlags");
  start();
  *stream = calloc(1, 1);
  return *stream ? SUCCESS : OUT_OF_MEMORY;
}

int cudaMemGetInfo(size_t *available, size_t *total) {
  *total = device_memory();
  *available = *total - allocated;
  return SUCCESS;
}

int cudaHostAlloc(void **memory, size_t size, unsigned flags) {
  COUNT("cudaHostAlloc");
  *memory = malloc(size);
  return *memory ? pin(*memory, size) : OUT_OF_MEMORY;
}

int cudaFreeHost(void *memory) {
  COUNT("cudaFreeHost");
  unpin(memory);
  free(memory);
  return SUCCESS;
}

int cudaHostRegister(void *memory, size_t size, unsigned flags) {
  COUNT("cudaHostRegister");
  return pin(memory, size);
}

int cudaHostUnregister(void *memory) {
  COUNT("cudaHostUnregister");
  return unpin(memory);
}

int cudaMemcpy(void *target, const void *source, size_t size, int direction) {
  return copy("cudaMemcpy", target, source, size, direction);
}

int cudaMemcpyAsync(void *target, const void *source, size_t size, int direction, void *stream) {
  return copy("cudaMemcpyAsync", target, source, size, direction);
}

int cudaMemset(void *memory, int value, size_t size) {
  return fill("cudaMemset", memory, value, size);
}

int cudaMemsetAsync(void *memory, int value, size_t size, void *stream) {
  return fill("cudaMemsetAsync", memory, value, size);
}

int cudaEventElapsedTime(float *milliseconds, void *from, void *to) {
  *milliseconds = 1;
  return SUCCESS;
}

int cudaGetDeviceCount(int *count) {
  *count = DEVICES;
  return SUCCESS;
}

int cudaSetDevice(int device) {
  COUNT("cudaSetDevice");
  return device >= 0 && device < DEVICES ? SUCCESS : INVALID_DEVICE;
}

const char *cudaGetErrorName(int error) { return error == OUT_OF_MEMORY ? "cudaErrorMemoryAllocation" : "an error"; }

const char *cudaGetErrorString(int error) { return error == OUT_OF_MEMORY ? "out of memory" : "an error"; }

int cudaGetDeviceProperties(Properties *properties, int device) {
  *properties = {
      .name = DEVICE_NAME,
      .total_memory = device_memory(),
      .block_memory = 48 << 10,
      .block_registers = 1 << 16,
      .warp = 32,
      .block_threads = 1024,
      .block_size = {1024, 1024, 64},
      .grid_size = {0x7fffffff, 65535, 65535},
      .major = capability(),
      .overlaps_copies = 1,
      .multiprocessors = 108,
  };
  return SUCCESS;
}

}  // extern "C"
