#include "by_name.h"

#include "runtime.h"
#include "stand_in.h"

using namespace stand_in;

namespace {

// That change no value, or that say what the tensors say too.
const std::set<std::string> OF_NO_ACCOUNT = {
  "N", "PRECISION_MODE", "argmax_type", "dst_type", "keep_dims", "negative_index_support", "noop_with_empty_axes",
  "num", "use_locking",
};

std::string types(const std::vector<Call::Tensor> &tensors) {
  std::string text;
  for (const Call::Tensor &tensor : tensors)
    text += (text.empty() ? "" : ", ") + (tensor.description ? name_of(tensor.description->type) : "none");
  return "(" + text + ")";
}

std::vector<Call::Tensor> tensors(int number, const aclTensorDesc *const *descriptions,
                                  const aclDataBuffer *const *buffers) {
  std::vector<Call::Tensor> result;
  for (int i = 0; i < number; i++) result.push_back({descriptions[i], buffers[i]});
  return result;
}

void execute(const Call &call) {
  stand_in_count(("by name: " + call.type + types(call.inputs) + " -> " + types(call.outputs)).c_str());
  if (!computes()) return;
  finish_copies();
  auto definition = definitions_by_name().find(call.type);
  if (definition == definitions_by_name().end()) stand_in_unknown(call.type.c_str());
  definition->second(call);
  call.check_attributes();
}

template <typename T>
int set(aclopAttr *attributes, const char *name, T value) {
  attributes->values[name] = value;
  return 0;
}

}  // namespace

View Call::view(const Tensor &tensor) {
  if (!tensor.description) stop("an input that is expected is not given");
  bool elsewhere = tensor.buffer && tensor.buffer->data;
  return View(type_of(tensor.description->type), elsewhere ? tensor.buffer->data : tensor.description->value,
              tensor.description->shape);
}

std::vector<View> Call::all_in() const {
  std::vector<View> views;
  for (const Tensor &input : inputs) views.push_back(view(input));
  return views;
}

const aclopAttr::Value &Call::find(const std::string &name) const {
  asked.insert(name);
  if (!attributes || !attributes->values.count(name)) stop(type + " without its attribute " + name);
  return attributes->values.at(name);
}

template <typename T>
const T &Call::attribute(const std::string &name) const {
  const T *value = std::get_if<T>(&find(name));
  if (!value) stop(type + "'s attribute " + name + " has another type");
  return *value;
}
template const int64_t &Call::attribute(const std::string &) const;
template const double &Call::attribute(const std::string &) const;
template const std::string &Call::attribute(const std::string &) const;
template const Dims &Call::attribute(const std::string &) const;

void Call::expect(const std::string &name, const aclopAttr::Value &value) const {
  if (find(name) != value) stop("nothing here computes " + type + " with such a value of its attribute " + name);
}

void Call::check_attributes() const {
  if (!attributes) return;
  for (const auto &[name, value] : attributes->values)
    if (!asked.count(name) && !OF_NO_ACCOUNT.count(name))
      stop("nothing here computes " + type + " with an attribute " + name);
}

extern "C" {

aclTensorDesc *aclCreateTensorDesc(int type, int rank, const int64_t *shape, int) {
  return new aclTensorDesc{type, Dims(shape, shape + std::max(rank, 0))};
}

void aclDestroyTensorDesc(const aclTensorDesc *description) { delete description; }
size_t aclGetTensorDescNumDims(const aclTensorDesc *description) { return description->shape.size(); }
int64_t aclGetTensorDescDim(const aclTensorDesc *description, size_t axis) { return description->shape.at(axis); }
int aclGetTensorDescType(const aclTensorDesc *description) { return description->type; }

int aclGetTensorDescDimV2(const aclTensorDesc *description, size_t axis, int64_t *length) {
  *length = description->shape.at(axis);
  return 0;
}

size_t aclGetTensorDescSize(const aclTensorDesc *description) {
  return width(type_of(description->type)) * count(description->shape);
}

void aclSetTensorDescName(aclTensorDesc *, const char *) {}

int aclSetTensorConst(aclTensorDesc *description, void *value, size_t) {
  description->value = value;
  return 0;
}

aclDataBuffer *aclCreateDataBuffer(void *data, size_t size) { return new aclDataBuffer{data, size}; }
void *aclGetDataBufferAddr(const aclDataBuffer *buffer) { return buffer->data; }
size_t aclGetDataBufferSizeV2(const aclDataBuffer *buffer) { return buffer->size; }

int aclDestroyDataBuffer(const aclDataBuffer *buffer) {
  delete buffer;
  return 0;
}

int aclUpdateDataBuffer(aclDataBuffer *buffer, void *data, size_t size) {
  *buffer = {data, size};
  return 0;
}

aclopAttr *aclopCreateAttr() { return new aclopAttr; }
void aclopDestroyAttr(const aclopAttr *attributes) { delete attributes; }
int aclopSetAttrBool(aclopAttr *to, const char *name, uint8_t value) { return set(to, name, int64_t(value)); }
int aclopSetAttrInt(aclopAttr *to, const char *name, int64_t value) { return set(to, name, value); }
int aclopSetAttrFloat(aclopAttr *to, const char *name, float value) { return set(to, name, double(value)); }
int aclopSetAttrString(aclopAttr *to, const char *name, const char *value) { return set(to, name, std::string(value)); }
int aclopSetAttrDataType(aclopAttr *to, const char *name, int value) { return set(to, name, int64_t(value)); }

int aclopSetAttrListInt(aclopAttr *to, const char *name, int number, const int64_t *values) {
  return set(to, name, Dims(values, values + number));
}

int aclopSetAttrListBool(aclopAttr *to, const char *name, int number, const uint8_t *values) {
  return set(to, name, Dims(values, values + number));
}

int aclopSetAttrListFloat(aclopAttr *to, const char *name, int number, const float *values) {
  return set(to, name, Values(values, values + number));
}

int aclopCompileAndExecute(const char *type, int inputs, const aclTensorDesc *const *input_descriptions,
                           const aclDataBuffer *const *input_buffers, int outputs,
                           const aclTensorDesc *const *output_descriptions, aclDataBuffer *const *output_buffers,
                           const aclopAttr *attributes, int, int, const char *, void *) {
  execute(Call(type, tensors(inputs, input_descriptions, input_buffers),
               tensors(outputs, output_descriptions, output_buffers), attributes));
  return 0;
}

int aclopCompileAndExecuteV2(const char *type, int inputs, aclTensorDesc **input_descriptions,
                             aclDataBuffer **input_buffers, int outputs, aclTensorDesc **output_descriptions,
                             aclDataBuffer **output_buffers, aclopAttr *attributes, int, int, const char *, void *) {
  execute(Call(type, tensors(inputs, input_descriptions, input_buffers),
               tensors(outputs, output_descriptions, output_buffers), attributes));
  return 0;
}

}
