// What cuDNN's functions share: descriptors, which hold what is set, and the tensors that they describe. Shapes that do
// not fit are refused, as by cuDNN itself.
#pragma once
#include <algorithm>
#include <initializer_list>
#include <optional>

#include "stand_in.h"
#include "values.h"

namespace stand_in::cudnn {

enum Status { SUCCESS, BAD_PARAMETER = 3, NOT_SUPPORTED = 9 };
constexpr int MOST = 8;  // axes

// Descriptors lie in the memory that CREATES of stand_in.h gives them, all zero until they are set.
struct TensorDescriptor {  // or a filter's [out, in / groups, ...]
  int type, rank, shape[MOST], strides[MOST];
};
using Described = const TensorDescriptor *;
struct ConvolutionDescriptor {
  int rank, padding[MOST], stride[MOST], dilation[MOST], groups, mode, type;
};
struct PoolingDescriptor {
  int mode, rank, window[MOST], padding[MOST], stride[MOST];
};
struct Operation {  // of OpTensor, a reduction or an activation
  int number;
  double coefficient;
};

inline Dims dims(const int *given, int number) { return Dims(given, given + number); }
inline Dims shape_of(Described tensor) { return dims(tensor->shape, tensor->rank); }
inline bool same(Described one, Described other) { return shape_of(one) == shape_of(other); }

// As many of a descriptor's numbers as there is room for.
inline void show(int room, int rank, const int *from, int *to) { std::copy_n(from, std::min(room, rank), to); }

std::optional<Type> type_of(int given);
View view(Described tensor, const void *data);
// What is computed but not yet written; the values must outlive the view.
inline View view(const Values &computed, const Dims &shape) { return View(Type::float64, computed.data(), shape); }

// Counts a launch with the tensors that it works on, of which null is one that is not given, and what else its cost
// depends on.
void count_call(const std::string &name, std::initializer_list<Described> tensors, const std::string &note = "");

// alpha and beta are double for tensors of double, else float.
double scalar(Described tensor, const void *given);

// data = alpha computed + beta data
void store(Described tensor, void *data, const Values &computed, const void *alpha, const void *beta);

double activated(const Operation *activation, double x);
double activation_slope(const Operation *activation, double y);  // the derivative, where the activation has come to y

}  // namespace stand_in::cudnn

#define NEEDS_NOTHING(name, ...)        \
  int name(__VA_ARGS__, size_t *size) { \
    *size = 0;                          \
    return SUCCESS;                     \
  }

using namespace stand_in;
using namespace stand_in::cudnn;
