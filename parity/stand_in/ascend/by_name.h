// Operators that the plugin hands over by their name, with tensors and attributes. CANN compiles them at their first
// use.
#pragma once
#include <functional>
#include <map>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "tensors.h"

struct aclTensorDesc {
  int type;
  stand_in::Dims shape;
  void *value = nullptr;  // of a constant
};

struct aclDataBuffer {
  void *data;
  size_t size;
};

struct aclopAttr {
  using Value = std::variant<int64_t, double, std::string, stand_in::Dims, stand_in::Values>;
  std::map<std::string, Value> values;
};

class Call {
 public:
  struct Tensor {  // both are null for an input that is not given
    const aclTensorDesc *description;
    const aclDataBuffer *buffer;
  };

  const std::string type;
  const std::vector<Tensor> inputs, outputs;

  Call(std::string type, std::vector<Tensor> inputs, std::vector<Tensor> outputs, const aclopAttr *attributes)
      : type(type), inputs(inputs), outputs(outputs), attributes(attributes) {}

  stand_in::View in(size_t place) const { return view(inputs.at(place)); }
  std::vector<stand_in::View> all_in() const;
  stand_in::View out(size_t place = 0) const { return view(outputs.at(place)); }
  double number_in(size_t place) const { return in(place).first(); }
  stand_in::Dims integers_in(size_t place) const { return in(place).integers(); }

  // An attribute; stops the process if it is not given, or is something else.
  int64_t integer(const std::string &name) const { return attribute<int64_t>(name); }
  double number(const std::string &name) const { return attribute<double>(name); }
  std::string text(const std::string &name) const { return attribute<std::string>(name); }
  stand_in::Dims integers(const std::string &name) const { return attribute<stand_in::Dims>(name); }

  // Stops the process if an attribute is something else.
  void expect(const std::string &name, const aclopAttr::Value &value) const;

  // Stops the process if an attribute was given that nobody has asked for.
  void check_attributes() const;

 private:
  const aclopAttr *attributes;
  mutable std::set<std::string> asked;

  static stand_in::View view(const Tensor &tensor);
  const aclopAttr::Value &find(const std::string &name) const;
  template <typename T>
  const T &attribute(const std::string &name) const;
};

using Definition = std::function<void(const Call &)>;
const std::map<std::string, Definition> &definitions_by_name();  // operators.cc
