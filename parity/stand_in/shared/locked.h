// Memory of the host that is page-locked.
#pragma once
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>
#include <mutex>

namespace stand_in {

class LockedMemory {
 public:
  void add(const void *memory, size_t size) {
    std::lock_guard<std::mutex> guard(lock);
    sizes[reinterpret_cast<uintptr_t>(memory)] = size;
  }
  void remove(const void *memory) {
    std::lock_guard<std::mutex> guard(lock);
    sizes.erase(reinterpret_cast<uintptr_t>(memory));
  }
  bool holds(const void *memory) {
    std::lock_guard<std::mutex> guard(lock);
    auto address = reinterpret_cast<uintptr_t>(memory);
    auto after = sizes.upper_bound(address);
    return after != sizes.begin() && address < std::prev(after)->first + std::prev(after)->second;
  }

 private:
  std::mutex lock;
  std::map<uintptr_t, size_t> sizes;  // by address
};

}  // namespace stand_in
