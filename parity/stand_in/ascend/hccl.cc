// Collective communication, between processes of one machine: what HCCL's functions hand over to a Meeting. Its name is
// the root's information, which the plugin brings from the first process to the others.
#include <cstdint>
#include <cstring>
#include <vector>

#include "meeting.h"
#include "runtime.h"
#include "stand_in.h"

using namespace stand_in;

namespace {

enum { SUCCESS = 0 };

Type type_of(uint32_t hccl) {
  static const std::vector<Type> types = {
    Type::int8,   Type::int16, Type::int32,  Type::float16, Type::float32, Type::int64,
    Type::uint64, Type::uint8, Type::uint16, Type::uint32,  Type::float64, Type::bfloat16,
  };
  if (hccl >= types.size()) stop("nothing here is of HCCL's type " + std::to_string(hccl));
  return types[hccl];
}

Combination combination_of(uint32_t hccl) {
  static const std::vector<Combination> operations = {
    Combination::sum, Combination::product, Combination::largest, Combination::smallest,
  };
  if (hccl >= operations.size()) stop("nothing here reduces by HCCL's operation " + std::to_string(hccl));
  return operations[hccl];
}

int join(uint32_t size, const char *name, uint32_t rank, void **group) {
  *group = new Meeting(name, rank, size);
  return SUCCESS;
}

Meeting &meeting(void *group) {
  finish_copies();
  return *static_cast<Meeting *>(group);
}

}  // namespace

extern "C" {

int HcclGetRootInfo(char *information) {
  strcpy(information, Meeting::new_name().c_str());
  return SUCCESS;
}

int HcclCommInitRootInfo(uint32_t size, const char *information, uint32_t rank, void **group) {
  return join(size, information, rank, group);
}

int HcclCommInitRootInfoConfig(uint32_t size, const char *information, uint32_t rank, void *, void **group) {
  return join(size, information, rank, group);
}

int HcclCommDestroy(void *group) {
  delete static_cast<Meeting *>(group);
  return SUCCESS;
}

int HcclGetRankId(void *group, uint32_t *rank) {
  *rank = meeting(group).rank;
  return SUCCESS;
}

int HcclGetRankSize(void *group, uint32_t *size) {
  *size = meeting(group).size;
  return SUCCESS;
}

int HcclGetCommName(void *, char *name) {
  strcpy(name, "stand_in");
  return SUCCESS;
}

const char *HcclGetErrorString(int) { return "an error of the stand-in"; }

int HcclGetCommAsyncError(void *, int *error) {
  *error = SUCCESS;
  return SUCCESS;
}

int HcclAllReduce(void *from, void *to, uint64_t number, uint32_t type, uint32_t operation, void *group, void *) {
  COUNT("HcclAllReduce");
  meeting(group).all_reduce(type_of(type), number, from, to, combination_of(operation));
  return SUCCESS;
}

int HcclReduceScatter(void *from, void *to, uint64_t number, uint32_t type, uint32_t operation, void *group, void *) {
  COUNT("HcclReduceScatter");
  meeting(group).reduce_scatter(type_of(type), number, from, to, combination_of(operation));
  return SUCCESS;
}

int HcclAllGather(void *from, void *to, uint64_t number, uint32_t type, void *group, void *) {
  COUNT("HcclAllGather");
  meeting(group).all_gather(number * width(type_of(type)), from, to);
  return SUCCESS;
}

int HcclBroadcast(void *buffer, uint64_t number, uint32_t type, uint32_t root, void *group, void *) {
  COUNT("HcclBroadcast");
  meeting(group).broadcast(number * width(type_of(type)), buffer, buffer, root);
  return SUCCESS;
}

int HcclBarrier(void *group, void *) {
  COUNT("HcclBarrier");
  meeting(group).barrier();
  return SUCCESS;
}

}
