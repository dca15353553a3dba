// Where the processes of one group meet to add up, gather and pass on what each has: memory that they share. NCCL's and
// HCCL's stand-ins hand over their arguments.
#pragma once
#include <string>

#include "values.h"

namespace stand_in {

enum class Combination { sum, product, largest, smallest, mean };

class Meeting {
 public:
  // A name for a new meeting, less than 100 letters, which the other processes have to be told.
  static std::string new_name();

  // Returns when all have come.
  Meeting(const std::string &name, int rank, int size);
  ~Meeting();
  Meeting(const Meeting &) = delete;

  const int rank, size;

  // All processes call these in the same order. `to` may be `from`.
  void barrier();
  void all_reduce(Type type, int64_t number, const void *from, void *to, Combination combination);
  // `number` counts what each process gets.
  void reduce_scatter(Type type, int64_t number, const void *from, void *to, Combination combination);
  // What each process has, `bytes` of it, in the order of their ranks.
  void all_gather(size_t bytes, const void *from, void *to);
  void broadcast(size_t bytes, const void *from, void *to, int root);

 private:
  struct Counters;

  char *part(int rank) const;
  template <typename Visit>
  void exchange(size_t bytes, const void *from, Visit visit);

  void *memory;
  Counters *counters;
};

}  // namespace stand_in
