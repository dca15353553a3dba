// Objects that the plugin makes and hands to operators. All that live are known, so that a call with other arguments
// than its definition expects is noticed.
#include "tensors.h"

#include <cstring>
#include <map>
#include <mutex>
#include <unordered_map>
#include <variant>

#include "stand_in.h"

using namespace stand_in;

namespace {

const std::map<int, Type> TYPES = {
  {0, Type::float32}, {1, Type::float16}, {2, Type::int8},    {3, Type::int32},   {4, Type::uint8},
  {6, Type::int16},   {7, Type::uint16},  {8, Type::uint32},  {9, Type::int64},   {10, Type::uint64},
  {11, Type::float64}, {12, Type::boolean}, {27, Type::bfloat16},
};

using Object = std::variant<const aclTensor *, const aclScalar *, const aclIntArray *, const aclFloatArray *,
                            const aclBoolArray *, const aclTensorList *>;

struct Living {
  std::mutex lock;
  std::unordered_map<uint64_t, Object> objects;
};

Living &living() {  // never destroyed: the plugin frees some at the very end
  static Living *all = new Living;
  return *all;
}

uint64_t address(const void *object) { return reinterpret_cast<uint64_t>(object); }

template <typename T>
T *born(T *object) {
  std::lock_guard<std::mutex> guard(living().lock);
  living().objects.insert_or_assign(address(object), Object(object));
  return object;
}

template <typename T>
int destroy(const T *object) {
  {
    std::lock_guard<std::mutex> guard(living().lock);
    living().objects.erase(address(object));
  }
  delete object;
  return 0;
}

struct Describe {
  std::string operator()(const aclTensor *tensor) const { return name_of(tensor->type); }
  std::string operator()(const aclScalar *scalar) const { return "scalar " + name_of(scalar->type); }
  std::string operator()(const aclIntArray *) const { return "integers"; }
  std::string operator()(const aclFloatArray *) const { return "numbers"; }
  std::string operator()(const aclBoolArray *) const { return "booleans"; }
  std::string operator()(const aclTensorList *list) const {
    return "list of " + (list->values.empty() || !list->values[0] ? "nothing" : name_of(list->values[0]->type));
  }
};

}  // namespace

Type type_of(int acl) {
  auto found = TYPES.find(acl);
  if (found == TYPES.end()) stop("nothing here is of CANN's type " + std::to_string(acl));
  return found->second;
}

std::string name_of(int acl) { return TYPES.count(acl) ? name(TYPES.at(acl)) : "type " + std::to_string(acl); }

View aclTensor::view() const {
  View all(type_of(type), storage, shape, strides);
  all.data += offset * static_cast<int64_t>(width(all.type));
  return all;
}

double aclScalar::value() const { return View(type_of(type), bytes, {}).first(); }

template <typename T>
bool lives(uint64_t given) {
  std::lock_guard<std::mutex> guard(living().lock);
  auto found = living().objects.find(given);
  return found != living().objects.end() && std::holds_alternative<const T *>(found->second);
}
template bool lives<aclTensor>(uint64_t);
template bool lives<aclScalar>(uint64_t);
template bool lives<aclIntArray>(uint64_t);
template bool lives<aclBoolArray>(uint64_t);
template bool lives<aclTensorList>(uint64_t);

std::string described(uint64_t argument) {
  std::lock_guard<std::mutex> guard(living().lock);
  auto found = living().objects.find(argument);
  return found == living().objects.end() ? "" : std::visit(Describe(), found->second);
}

extern "C" {

size_t aclDataTypeSize(int type) { return TYPES.count(type) ? width(TYPES.at(type)) : 0; }

aclTensor *aclCreateTensor(const int64_t *shape, uint64_t rank, int type, const int64_t *strides, int64_t offset, int,
                           const int64_t *, uint64_t, void *storage) {
  COUNT("aclCreateTensor");
  Dims lengths(shape, shape + rank);
  Dims steps = strides ? Dims(strides, strides + rank) : contiguous(lengths);
  return born(new aclTensor{type, storage, offset, lengths, steps});
}

aclScalar *aclCreateScalar(void *value, int type) {
  COUNT("aclCreateScalar");
  auto scalar = new aclScalar{type, {}};
  memcpy(scalar->bytes, value, aclDataTypeSize(type));
  return born(scalar);
}

aclIntArray *aclCreateIntArray(const int64_t *values, uint64_t number) {
  return born(new aclIntArray{{values, values + number}});
}

aclFloatArray *aclCreateFloatArray(const float *values, uint64_t number) {
  return born(new aclFloatArray{{values, values + number}});
}

aclBoolArray *aclCreateBoolArray(const bool *values, uint64_t number) {
  return born(new aclBoolArray{{values, values + number}});
}

aclTensorList *aclCreateTensorList(aclTensor *const *values, uint64_t number) {
  return born(new aclTensorList{{values, values + number}});
}

int aclDestroyTensor(const aclTensor *tensor) { return destroy(tensor); }
int aclDestroyScalar(const aclScalar *scalar) { return destroy(scalar); }
int aclDestroyIntArray(const aclIntArray *array) { return destroy(array); }
int aclDestroyFloatArray(const aclFloatArray *array) { return destroy(array); }
int aclDestroyBoolArray(const aclBoolArray *array) { return destroy(array); }

int aclDestroyTensorList(const aclTensorList *list) {  // and its tensors
  for (aclTensor *tensor : list->values) destroy(tensor);
  return destroy(list);
}

// An executor that is run again gets other memory for the same tensors.
int aclSetTensorAddr(void *, size_t, aclTensor *tensor, void *storage) {
  if (tensor) tensor->storage = storage;
  return 0;
}

int aclSetDynamicTensorAddr(void *, size_t, size_t place, aclTensorList *list, void *storage) {
  if (list) list->values.at(place)->storage = storage;
  return 0;
}

int aclGetViewShape(const aclTensor *tensor, int64_t **shape, uint64_t *rank) {  // the caller frees the shape
  *rank = tensor->shape.size();
  *shape = new int64_t[*rank + 1];
  std::copy(tensor->shape.begin(), tensor->shape.end(), *shape);
  return 0;
}

}
