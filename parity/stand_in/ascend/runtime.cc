// AscendCL's runtime. The device's memory is the host's, where pages that nobody writes cost nothing. When no values are
// computed, the device skips fills and copies of more than LARGE within its memory, so that a large model needs few
// pages. Work put on a stream is done at once, but for copies from page-locked memory: those are done when the device
// next does anything, and not at all where no values are computed, as they take no time of the host's. What a stream
// calls back comes later, too, at the latest when the host waits for the stream. STAND_IN_MEMORY: the device's memory
// in bytes.
#include "runtime.h"

#include <sys/mman.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

#include "locked.h"
#include "stand_in.h"
#include "values.h"

namespace {

enum { SUCCESS = 0, INVALID_VALUE = 107000, OUT_OF_MEMORY = 207001 };
enum { TO_DEVICE = 1, TO_HOST, WITHIN_DEVICE };  // aclrtMemcpyKind
enum { EVENT_COMPLETE = 1 };      // aclrtEventRecordedStatus
enum { STREAM_COMPLETE = 0 };     // aclrtStreamStatus
enum { HOST = 1 };                // aclrtRunMode: on which side this process runs
enum { CUBE_CORES, VECTOR_CORES };  // aclrtDevResLimitType
constexpr size_t LARGE = 1 << 20;  // bytes
constexpr size_t ALIGNMENT = 64;   // of host memory, in bytes
constexpr uint32_t DEVICES = 8;
constexpr uint32_t CORES[] = {24, 48};  // of an Ascend 910B2, by kind
constexpr std::chrono::milliseconds LATENESS{10};  // of callbacks
constexpr std::chrono::seconds PATIENCE{1};        // with a thread that is to call back, and may have ended

size_t device_memory() {
  static const char *given = getenv("STAND_IN_MEMORY");
  return given ? strtoull(given, nullptr, 10) : 64ull << 30;
}

std::atomic<size_t> allocated;

bool allocate(size_t size) {
  if ((allocated += size) <= device_memory()) return true;
  allocated -= size;
  return false;
}

// Ranges of addresses that are mapped, with their sizes.
struct Mapped {
  std::mutex lock;
  std::map<void *, size_t> sizes;
};

Mapped &mapped() {  // never destroyed: the plugin frees some at the very end
  static Mapped *all = new Mapped;
  return *all;
}

void *map_memory(size_t size) {
  size = size ? size : 1;
  void *start = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (start == MAP_FAILED) return nullptr;
  std::lock_guard<std::mutex> guard(mapped().lock);
  mapped().sizes[start] = size;
  return start;
}

size_t unmap_memory(void *start) {  // its size; 0 if it was not mapped
  stand_in::finish_copies();
  std::lock_guard<std::mutex> guard(mapped().lock);
  auto found = mapped().sizes.find(start);
  if (found == mapped().sizes.end()) return 0;
  size_t size = found->second;
  munmap(start, size);
  mapped().sizes.erase(found);
  return size;
}

int allocate_mapped(void **memory, size_t size) {
  *memory = nullptr;
  size = size ? size : 1;
  if (!allocate(size)) return OUT_OF_MEMORY;
  *memory = map_memory(size);
  return *memory ? SUCCESS : OUT_OF_MEMORY;
}

// What a stream is still to do.
struct Pending {
  std::mutex lock;
  struct Copy {
    void *target;
    const void *source;
    size_t size;
  };
  std::vector<Copy> copies;
  std::vector<std::pair<void (*)(void *), void *>> callbacks;
  size_t called = 0;   // callbacks that have not returned
  size_t waiting = 0;  // threads, for all of this
  std::condition_variable changed;

  void finish_copies() {
    for (const Copy &copy : copies) memmove(copy.target, copy.source, copy.size);
    copies.clear();
  }

  void call_back() {
    std::unique_lock<std::mutex> guard(lock);
    changed.wait_for(guard, LATENESS, [&] { return waiting && !callbacks.empty(); });
    finish_copies();
    decltype(callbacks) reached;
    reached.swap(callbacks);
    called += reached.size();
    guard.unlock();
    for (auto [callback, argument] : reached) callback(argument);
    guard.lock();
    called -= reached.size();
    changed.notify_all();
  }

  void finish() {
    std::unique_lock<std::mutex> guard(lock);
    finish_copies();
    waiting++;
    changed.notify_all();
    changed.wait_for(guard, PATIENCE, [&] { return callbacks.empty() && !called; });
    waiting--;
  }
};

Pending &pending() {
  static Pending *all = new Pending;
  return *all;
}

stand_in::LockedMemory &locked() {
  static stand_in::LockedMemory *all = new stand_in::LockedMemory;
  return *all;
}

int copy(void *target, size_t room, const void *source, size_t size, int direction, bool later = false) {
  if (size > room || (size && !(target && source))) return INVALID_VALUE;
  stand_in::finish_copies();
  if (later) {
    std::lock_guard<std::mutex> guard(pending().lock);
    if (stand_in::computes()) pending().copies.push_back({target, source, size});
  } else if (size <= LARGE || direction != WITHIN_DEVICE || stand_in::computes()) {
    memmove(target, source, size);
  }
  return SUCCESS;
}

int fill(void *memory, size_t room, int value, size_t size) {
  if (size > room) return INVALID_VALUE;
  stand_in::finish_copies();
  if (size <= LARGE || stand_in::computes()) memset(memory, value, size);
  return SUCCESS;
}

// A device calls back at once, but does not wait until that has returned; a process that ends meanwhile would crash.
int synchronize() {
  pending().finish();
  return SUCCESS;
}

int cores(int kind, uint32_t *number) {
  *number = CORES[kind == CUBE_CORES ? CUBE_CORES : VECTOR_CORES];
  return SUCCESS;
}

int device;
char context;  // the only one: a thread that has chosen none has it too
thread_local void *current_context = &context;

}  // namespace

void stand_in::finish_copies() {
  std::lock_guard<std::mutex> guard(pending().lock);
  pending().finish_copies();
}

extern "C" {

// The device

const char *aclrtGetSocName() {
  const char *given = getenv("STAND_IN_SOC");
  return given ? given : "Ascend910B2";
}

int aclrtGetVersion(int *major, int *minor, int *patch) {
  *major = 1;
  *minor = *patch = 0;
  return SUCCESS;
}

struct PackageVersion {
  char version[128], major[64], minor[64], release[64], patch[64], reserved[128];
};

int aclsysGetCANNVersion(int, PackageVersion *version) {
  *version = {"9.0.0", "9", "0", "0", "0", ""};
  return SUCCESS;
}

const char *aclGetRecentErrMsg() { return ""; }

int aclrtGetDeviceCount(uint32_t *number) {
  *number = DEVICES;
  return SUCCESS;
}

int aclrtSetDevice(int chosen) {
  COUNT("aclrtSetDevice");
  device = chosen;
  return SUCCESS;
}

int aclrtGetDevice(int *chosen) {
  *chosen = device;
  return SUCCESS;
}

int aclrtGetRunMode(int *mode) {
  *mode = HOST;
  return SUCCESS;
}

int aclrtDeviceCanAccessPeer(int *can, int, int) {
  *can = 1;
  return SUCCESS;
}

int aclGetDeviceCapability(uint32_t, int, int64_t *value) {
  *value = CORES[CUBE_CORES];
  return SUCCESS;
}

int aclrtGetDeviceResLimit(int, int kind, uint32_t *number) { return cores(kind, number); }
int aclrtGetStreamResLimit(void *, int kind, uint32_t *number) { return cores(kind, number); }
int aclrtGetResInCurrentThread(int kind, uint32_t *number) { return cores(kind, number); }

int aclrtCreateContext(void **created, int) {
  *created = current_context = &context;
  return SUCCESS;
}

int aclrtGetCurrentContext(void **current) {
  *current = current_context;
  return SUCCESS;
}

int aclrtSetCurrentContext(void *chosen) {
  current_context = chosen;
  return SUCCESS;
}

// Memory

int aclrtMalloc(void **memory, size_t size, int) {
  COUNT("aclrtMalloc");
  return allocate_mapped(memory, size);
}

int aclrtMallocAlign32(void **memory, size_t size, int) {
  COUNT("aclrtMallocAlign32");
  return allocate_mapped(memory, size);
}

int aclrtFree(void *memory) {
  COUNT("aclrtFree");
  if (!memory) return SUCCESS;
  size_t size = unmap_memory(memory);
  allocated -= size;
  return size ? SUCCESS : INVALID_VALUE;
}

int aclrtMallocHost(void **memory, size_t size) {
  COUNT("aclrtMallocHost");
  if (stand_in::planted("lock")) return OUT_OF_MEMORY;
  *memory = aligned_alloc(ALIGNMENT, (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
  if (!*memory) return OUT_OF_MEMORY;
  locked().add(*memory, size);
  return SUCCESS;
}

int aclrtFreeHost(void *memory) {
  stand_in::finish_copies();
  locked().remove(memory);
  free(memory);
  return SUCCESS;
}

int halHostRegister(void *memory, uint64_t, uint32_t, uint32_t, void **of_device) {
  *of_device = memory;
  return SUCCESS;
}

int aclrtGetMemInfo(int, size_t *available, size_t *total) {
  *total = device_memory();
  *available = *total - allocated;
  return SUCCESS;
}

// Virtual memory: its addresses are mapped at once, and physical memory is only counted.

int aclrtReserveMemAddress(void **start, size_t size, size_t, void *, uint64_t) {
  *start = map_memory(size);
  return *start ? SUCCESS : OUT_OF_MEMORY;
}

int aclrtReleaseMemAddress(void *start) { return unmap_memory(start) ? SUCCESS : INVALID_VALUE; }

int aclrtMallocPhysical(void **memory, size_t size, const void *, uint64_t) {
  COUNT("aclrtMallocPhysical");
  if (!allocate(size)) return OUT_OF_MEMORY;
  *memory = new size_t(size);
  return SUCCESS;
}

int aclrtFreePhysical(void *memory) {
  auto size = static_cast<size_t *>(memory);
  allocated -= *size;
  delete size;
  return SUCCESS;
}

// Copies and fills

int aclrtMemcpy(void *target, size_t room, const void *source, size_t size, int direction) {
  COUNT("aclrtMemcpy");
  return copy(target, room, source, size, direction);
}

int aclrtMemcpyAsync(void *target, size_t room, const void *source, size_t size, int direction, void *) {
  if (direction == WITHIN_DEVICE || locked().holds(direction == TO_DEVICE ? source : target)) {
    COUNT("aclrtMemcpyAsync");
    return copy(target, room, source, size, direction, direction == TO_DEVICE);
  }
  COUNT("aclrtMemcpyAsync, which waits for ordinary memory");  // as the manual says
  return copy(target, room, source, size, direction);
}

int aclrtMemset(void *memory, size_t room, int value, size_t size) {
  COUNT("aclrtMemset");
  return fill(memory, room, value, size);
}

int aclrtMemsetAsync(void *memory, size_t room, int value, size_t size, void *) {
  COUNT("aclrtMemsetAsync");
  return fill(memory, room, value, size);
}

// Streams and events

CREATES(aclrtCreateStream, "aclrtCreateStream")
CREATES(aclrtCreateStreamWithConfig, "aclrtCreateStreamWithConfig")
CREATES(aclrtCreateEvent, "aclrtCreateEvent")
CREATES(aclrtCreateEventWithFlag, "aclrtCreateEventWithFlag")
CREATES(aclrtCreateEventExWithFlag, "aclrtCreateEventExWithFlag")
DESTROYS(aclrtDestroyStream, "aclrtDestroyStream")
DESTROYS(aclrtDestroyStreamForce, "aclrtDestroyStreamForce")
DESTROYS(aclrtDestroyEvent, "aclrtDestroyEvent")

int aclrtSynchronizeDeviceWithTimeout(int) {
  COUNT("aclrtSynchronizeDeviceWithTimeout");
  return synchronize();
}

int aclrtSynchronizeStream(void *) {
  COUNT("aclrtSynchronizeStream");
  return synchronize();
}

int aclrtSynchronizeStreamWithTimeout(void *, int) {
  COUNT("aclrtSynchronizeStreamWithTimeout");
  return synchronize();
}

int aclrtSynchronizeEvent(void *) {
  COUNT("aclrtSynchronizeEvent");
  return synchronize();
}

int aclrtDeviceGetStreamPriorityRange(int *least, int *greatest) {
  *least = 7;
  *greatest = 0;
  return SUCCESS;
}

int aclrtStreamQuery(void *, int *status) {
  *status = STREAM_COMPLETE;
  return SUCCESS;
}

int aclrtQueryEventStatus(void *, int *status) {
  *status = EVENT_COMPLETE;
  return SUCCESS;
}

int aclrtEventElapsedTime(float *milliseconds, void *, void *) {
  *milliseconds = 1;
  return SUCCESS;
}

int aclrtEventGetTimestamp(void *, uint64_t *time) {
  *time = 1;
  return SUCCESS;
}

int aclrtLaunchCallback(void (*callback)(void *), void *argument, int, void *) {
  COUNT("aclrtLaunchCallback");
  if (stand_in::planted("callback")) {  // before the stream has come to it
    callback(argument);
    return SUCCESS;
  }
  std::lock_guard<std::mutex> guard(pending().lock);
  pending().callbacks.emplace_back(callback, argument);
  return SUCCESS;
}

int aclrtProcessReport(int) {  // callbacks that a stream has come to; a thread of the plugin asks in a loop
  pending().call_back();
  return SUCCESS;
}

// What the plugin lends GE's allocator

void *aclrtAllocatorCreateDesc() { return calloc(1, 1); }

int aclrtAllocatorDestroyDesc(void *description) {
  free(description);
  return SUCCESS;
}

}
