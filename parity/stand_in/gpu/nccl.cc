// NCCL, between processes of one machine. The host waits for the other processes, because work put on a stream is
// done at once.
#include <cstdio>
#include <optional>

#include "meeting.h"
#include "stand_in.h"

using stand_in::Combination, stand_in::Meeting, stand_in::Type;

namespace {

enum Result { SUCCESS, INVALID_ARGUMENT = 4 };

struct UniqueId {
  char name[128];
};

std::optional<Type> type_of(int given) {  // ncclDataType_t
  static const Type types[] = {Type::int8,   Type::uint8,   Type::int32,   Type::uint32,  Type::int64,
                               Type::uint64, Type::float16, Type::float32, Type::float64, Type::bfloat16};
  if (given < 0 || given >= static_cast<int>(std::size(types))) return std::nullopt;
  return types[given];
}

std::optional<Combination> combination_of(int given) {  // ncclRedOp_t
  static const Combination combinations[] = {Combination::sum, Combination::product, Combination::largest,
                                             Combination::smallest, Combination::mean};
  if (given < 0 || given >= static_cast<int>(std::size(combinations))) return std::nullopt;
  return combinations[given];
}

}  // namespace

extern "C" {

int ncclGetUniqueId(UniqueId *id) {
  COUNT("ncclGetUniqueId");
  snprintf(id->name, sizeof id->name, "%s", Meeting::new_name().c_str());
  return SUCCESS;
}

int ncclCommInitRank(Meeting **made, int size, UniqueId id, int rank) {
  COUNT("ncclCommInitRank");
  if (size < 1 || rank < 0 || rank >= size) return INVALID_ARGUMENT;
  *made = new Meeting(id.name, rank, size);
  return SUCCESS;
}

int ncclCommAbort(Meeting *meeting) {
  COUNT("ncclCommAbort");
  delete meeting;
  return SUCCESS;
}

int ncclGroupStart() {
  COUNT("ncclGroupStart");
  return SUCCESS;
}

int ncclGroupEnd() {
  COUNT("ncclGroupEnd");
  return SUCCESS;
}

int ncclAllReduce(const void *from, void *to, size_t number, int type, int operation, Meeting *meeting, void *stream) {
  COUNT("ncclAllReduce");
  auto element = type_of(type);
  auto combination = combination_of(operation);
  if (!element || !combination) return INVALID_ARGUMENT;
  meeting->all_reduce(*element, number, from, to, *combination);
  return SUCCESS;
}

int ncclReduceScatter(const void *from, void *to, size_t number, int type, int operation, Meeting *meeting,
                      void *stream) {
  COUNT("ncclReduceScatter");
  auto element = type_of(type);
  auto combination = combination_of(operation);
  if (!element || !combination) return INVALID_ARGUMENT;
  meeting->reduce_scatter(*element, number, from, to, *combination);
  return SUCCESS;
}

int ncclAllGather(const void *from, void *to, size_t number, int type, Meeting *meeting, void *stream) {
  COUNT("ncclAllGather");
  auto element = type_of(type);
  if (!element) return INVALID_ARGUMENT;
  meeting->all_gather(number * stand_in::width(*element), from, to);
  return SUCCESS;
}

int ncclBroadcast(const void *from, void *to, size_t number, int type, int root, Meeting *meeting, void *stream) {
  COUNT("ncclBroadcast");
  auto element = type_of(type);
  if (!element || root < 0 || root >= meeting->size) return INVALID_ARGUMENT;
  meeting->broadcast(number * stand_in::width(*element), from, to, root);
  return SUCCESS;
}

}  // extern "C"
