#include "meeting.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <random>

namespace stand_in {

namespace {

constexpr size_t PART = 1 << 20;  // bytes of each process, and in front of them
constexpr int WAIT = 50;          // microseconds

size_t whole(int size) { return (size + 1) * PART; }

std::string path(const std::string &name) { return "/dev/shm/" + name; }

double combined(Combination combination, double a, double b) {
  switch (combination) {
    case Combination::product: return a * b;
    case Combination::largest: return std::max(a, b);
    case Combination::smallest: return std::min(a, b);
    default: return a + b;
  }
}

}  // namespace

struct Meeting::Counters {
  std::atomic<int> arrived, round;
};

std::string Meeting::new_name() {
  std::random_device random;
  return "ms_vireid-stand-in-" + std::to_string(getpid()) + "-" + std::to_string(random());
}

Meeting::Meeting(const std::string &name, int rank, int size) : rank(rank), size(size) {
  int file = open(path(name).c_str(), O_RDWR | O_CREAT, 0600);
  if (file < 0 || ftruncate(file, whole(size))) stop("cannot share " + path(name));
  memory = mmap(nullptr, whole(size), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (memory == MAP_FAILED) stop("cannot map " + path(name));
  counters = static_cast<Counters *>(memory);
  barrier();
  if (rank == 0) unlink(path(name).c_str());  // nobody looks for it any more
}

Meeting::~Meeting() { munmap(memory, whole(size)); }

char *Meeting::part(int of) const { return static_cast<char *>(memory) + (of + 1) * PART; }

void Meeting::barrier() {
  int round = counters->round;
  if (++counters->arrived == size) {
    counters->arrived = 0;
    ++counters->round;
    return;
  }
  while (counters->round == round) usleep(WAIT);
}

// As much at a time as a part holds: visit(place of the first byte, number of bytes), while all parts can be read.
template <typename Visit>
void Meeting::exchange(size_t bytes, const void *from, Visit visit) {
  for (size_t start = 0; start < bytes; start += PART) {
    size_t number = std::min(PART, bytes - start);
    memcpy(part(rank), static_cast<const char *>(from) + start, number);
    barrier();
    visit(start, number);
    barrier();
  }
}

void Meeting::all_reduce(Type type, int64_t number, const void *from, void *to, Combination combination) {
  auto combine = [&](auto a, auto b) { return combined(combination, a, b); };
  exchange(number * width(type), from, [&](size_t start, size_t bytes) {
    int64_t elements = bytes / width(type);
    auto of = [&](int process) { return View(type, part(process), {elements}); };
    Values total = of(0).read();
    View so_far(Type::float64, total.data(), {elements});
    for (int process = 1; process < size; process++) map(combine, so_far, so_far, of(process));
    if (combination == Combination::mean) map([&](double a) { return a / size; }, so_far, so_far);
    View(type, static_cast<char *>(to) + start, {elements}).write(total);
  });
}

void Meeting::reduce_scatter(Type type, int64_t number, const void *from, void *to, Combination combination) {
  std::string all(number * size * width(type), 0);
  all_reduce(type, number * size, from, all.data(), combination);
  memcpy(to, all.data() + rank * number * width(type), number * width(type));
}

void Meeting::all_gather(size_t bytes, const void *from, void *to) {
  exchange(bytes, from, [&](size_t start, size_t number) {
    for (int process = 0; process < size; process++)
      memcpy(static_cast<char *>(to) + process * bytes + start, part(process), number);
  });
}

void Meeting::broadcast(size_t bytes, const void *from, void *to, int root) {
  exchange(bytes, rank == root ? from : to,
           [&](size_t start, size_t number) { memcpy(static_cast<char *>(to) + start, part(root), number); });
}

}  // namespace stand_in
