// What operators are handed, and CANN's numbers of types.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "values.h"

stand_in::Type type_of(int acl);  // stops the process at one that it does not know
std::string name_of(int acl);

struct aclTensor {
  int type;
  void *storage;
  int64_t offset;  // in elements, as the strides
  stand_in::Dims shape, strides;

  stand_in::View view() const;
};

struct aclScalar {
  int type;
  char bytes[16];

  double value() const;
};

struct aclIntArray {
  std::vector<int64_t> values;
};

struct aclFloatArray {
  std::vector<float> values;
};

struct aclBoolArray {
  std::vector<char> values;
};

struct aclTensorList {
  std::vector<aclTensor *> values;
};

// Whether such an object lives at this address.
template <typename T>
bool lives(uint64_t address);

// For a signature: the type of what lives at this address; nothing if it is a number instead of an address.
std::string described(uint64_t argument);
