// CUDA C++ on the host, for the stand-in: blocks run one after another, a block's threads in turn, each until it waits
// for the others. STAND_IN_ORDER=backward turns the order of threads and blocks round.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#define __device__
#define __shared__ static

struct Half {
  _Float16 value;
};
inline float number(Half x) { return static_cast<float>(x.value); }
inline Half half_of(float x) { return {static_cast<_Float16>(x)}; }
inline int min(int a, int b) { return a < b ? a : b; }
inline float __int_as_float(int bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

struct Place {
  unsigned x, y, z;
};
static Place threadIdx, blockIdx, blockDim, gridDim;

namespace host {

enum State { READY, AT_WARP, AT_BLOCK, DONE };
constexpr int WARP = 32, STACK = 64 << 10;

struct Thread {
  State state;
  void *stack;
  Place place;
  std::unique_ptr<char[]> memory{new char[STACK]};
};

static std::vector<Thread> threads(1024);
static void *scheduler;
static int current;
static void (*entry)(void *);
static void *arguments;
static float exchanged[1024];

// Saves the registers that a call keeps on the stack, leaves its end in `saved`, and goes on at another's.
extern "C" void host_switch(void **saved, void *other);
asm(R"(
.text
.local host_switch
host_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");

static void leave(State state) {
  threads[current].state = state;
  host_switch(&threads[current].stack, scheduler);
}
static void begin() {
  entry(arguments);
  leave(DONE);
}

// Lets all threads from `first` to `last` that wait in this way go on, once no other of them can.
static bool released(int first, int last, State waiting) {
  bool any = false;
  for (int i = first; i < last; i++) {
    if (threads[i].state != waiting && threads[i].state != DONE) return false;
    any |= threads[i].state == waiting;
  }
  for (int i = first; any && i < last; i++)
    if (threads[i].state == waiting) threads[i].state = READY;
  return any;
}

static void run_block(int count, bool backward) {
  for (int i = 0; i < count; i++) {
    Thread &thread = threads[i];
    auto top = reinterpret_cast<uintptr_t>(thread.memory.get() + STACK) & ~uintptr_t(15);
    auto *frame = reinterpret_cast<void **>(top) - 8;  // six registers, where to begin, and no one to return to
    std::fill(frame, frame + 8, nullptr);
    frame[6] = reinterpret_cast<void *>(begin);
    unsigned x = i % blockDim.x, y = i / blockDim.x % blockDim.y;
    thread.state = READY, thread.stack = frame, thread.place = {x, y, i / (blockDim.x * blockDim.y)};
  }
  for (bool moved = true; moved;) {
    moved = false;
    for (int k = 0; k < count; k++) {
      current = backward ? count - 1 - k : k;
      if (threads[current].state != READY) continue;
      threadIdx = threads[current].place;
      host_switch(&scheduler, threads[current].stack);
      moved = true;
    }
    for (int i = 0; i < count; i += WARP) moved |= released(i, std::min(i + WARP, count), AT_WARP);
    moved |= released(0, count, AT_BLOCK);
  }
}

}  // namespace host

inline void __syncthreads() {
  host::leave(host::AT_BLOCK);
  threadIdx = host::threads[host::current].place;
}
inline float __shfl_xor_sync(unsigned, float x, int lanes) {
  host::exchanged[host::current] = x;
  host::leave(host::AT_WARP);
  float other = host::exchanged[host::current ^ lanes];
  host::leave(host::AT_WARP);
  threadIdx = host::threads[host::current].place;
  return other;
}

extern "C" void host_run(void (*entry)(void *), void *arguments, const unsigned *grid, const unsigned *block) {
  host::entry = entry, host::arguments = arguments;
  gridDim = {grid[0], grid[1], grid[2]}, blockDim = {block[0], block[1], block[2]};
  const char *order = std::getenv("STAND_IN_ORDER");
  bool backward = order && !std::strcmp(order, "backward");
  unsigned blocks = grid[0] * grid[1] * grid[2];
  for (unsigned k = 0; k < blocks; k++) {
    unsigned i = backward ? blocks - 1 - k : k;
    blockIdx = {i % grid[0], i / grid[0] % grid[1], i / (grid[0] * grid[1])};
    host::run_block(block[0] * block[1] * block[2], backward);
  }
}
