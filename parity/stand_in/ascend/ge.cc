// GE's classes, as far as the plugin uses them without GE: it makes an operator to set its attributes, reads them back
// and hands them to by_name.cc. The rest of GE, which only its graphs need, is not written here.
#include <any>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "stand_in.h"

using std::shared_ptr, std::string, std::vector;

namespace ge {

using Status = uint32_t;
constexpr Status SUCCESS = 0, FAILED = 0xFFFFFFFF;
enum DataType : int {};
enum Format : int {};
class Graph;
class TensorType;
class Promote;

class StatusFactory {
 public:
  static StatusFactory *Instance();

 private:
  std::map<uint32_t, string> descriptions;
};

StatusFactory *StatusFactory::Instance() {
  static auto factory = new StatusFactory;
  return factory;
}

class AscendString {
 public:
  AscendString() = default;
  AscendString(const char *text);
  const char *GetString() const;
  bool operator<(const AscendString &other) const;
  bool operator==(const AscendString &other) const;
  size_t Hash() const;

 private:
  shared_ptr<string> text;
};

AscendString::AscendString(const char *given) : text(given ? std::make_shared<string>(given) : nullptr) {}
const char *AscendString::GetString() const { return text ? text->c_str() : ""; }
bool AscendString::operator<(const AscendString &other) const { return string(GetString()) < other.GetString(); }
bool AscendString::operator==(const AscendString &other) const { return string(GetString()) == other.GetString(); }
size_t AscendString::Hash() const { return std::hash<string>()(GetString()); }

class Shape {
 public:
  Shape();
  explicit Shape(const vector<int64_t> &lengths);

 private:
  shared_ptr<vector<int64_t>> lengths;
};

Shape::Shape() : Shape(vector<int64_t>()) {}
Shape::Shape(const vector<int64_t> &given) : lengths(std::make_shared<vector<int64_t>>(given)) {}

class TensorDesc {
 public:
  TensorDesc();
  TensorDesc(const TensorDesc &other);
  TensorDesc(TensorDesc &&other);
  TensorDesc(Shape shape, Format format, DataType type);
  TensorDesc &operator=(const TensorDesc &other);

 private:
  shared_ptr<void> content;  // which nobody asks for
};

TensorDesc::TensorDesc() = default;
TensorDesc::TensorDesc(const TensorDesc &) = default;
TensorDesc::TensorDesc(TensorDesc &&) = default;
TensorDesc::TensorDesc(Shape, Format, DataType) {}
TensorDesc &TensorDesc::operator=(const TensorDesc &) = default;

class Tensor {
 public:
  Tensor();

 private:
  shared_ptr<void> content;  // which nobody asks for
};

Tensor::Tensor() = default;

// The types of attributes: those that are handed over by value to SetAttr, and the others.
#define NUMBERS(DO) DO(bool) DO(float) DO(int) DO(unsigned) DO(int64_t)
#define OBJECTS(DO)                                                                                            \
  DO(DataType) DO(string) DO(AscendString) DO(Tensor) DO(vector<bool>) DO(vector<float>) DO(vector<int>)       \
  DO(vector<int64_t>) DO(vector<vector<int64_t>>) DO(vector<string>) DO(vector<AscendString>) DO(vector<DataType>)

class Operator {
 public:
  Operator() = default;
  explicit Operator(const string &type);
  Operator(const string &name, const string &type);
  explicit Operator(const char *type);
  Operator(const char *name, const char *type);
  Operator(const AscendString &name, const AscendString &type);
  virtual ~Operator() = default;
  string GetName() const;
  Status GetName(AscendString &name) const;
  string GetOpType() const;
  Status GetOpType(AscendString &type) const;

#define DECLARE(T, GIVEN)                        \
  Operator &SetAttr(const string &name, GIVEN);  \
  Operator &SetAttr(const char *name, GIVEN);    \
  Status GetAttr(const string &name, T &) const; \
  Status GetAttr(const char *name, T &) const;   \
  void AttrRegister(const char *name, GIVEN);
#define DECLARE_NUMBER(T) DECLARE(T, T)
#define DECLARE_OBJECT(T) DECLARE(T, const T &)
  NUMBERS(DECLARE_NUMBER)
  OBJECTS(DECLARE_OBJECT)
  Operator &SetAttr(const char *name, const char *value);

  // An operator's inputs and outputs, which by_name.cc is told with each call.
  Operator &SetInput(const string &, const Operator &);
  Operator &SetInput(const char *, const Operator &);
  Operator &SetInput(const string &, const Operator &, const string &);
  Operator &SetInput(const char *, const Operator &, const char *);
  Operator &SetInput(const char *, uint32_t, const Operator &);
  Operator &SetInput(const char *, uint32_t, const Operator &, const char *);
  Operator &AddControlInput(const Operator &);
  TensorDesc GetInputDesc(const string &) const;
  TensorDesc GetInputDesc(uint32_t) const;
  TensorDesc GetInputDescByName(const char *) const;
  TensorDesc GetOutputDesc(const string &) const;
  TensorDesc GetOutputDesc(uint32_t) const;
  TensorDesc GetOutputDescByName(const char *) const;

 private:
  struct Content {
    string name, type;
    std::map<string, std::any> attributes;
  };
  shared_ptr<Content> content;

  template <typename T>
  Operator &set(const string &name, const T &value);
  template <typename T>
  Status get(const string &name, T &value) const;
};

Operator::Operator(const string &name, const string &type) : content(std::make_shared<Content>(Content{name, type})) {}
Operator::Operator(const string &type) : Operator(string(), type) {}
Operator::Operator(const char *type) : Operator(string(), string(type)) {}
Operator::Operator(const char *name, const char *type) : Operator(string(name), string(type)) {}
Operator::Operator(const AscendString &name, const AscendString &type) : Operator(name.GetString(), type.GetString()) {}

string Operator::GetName() const { return content ? content->name : ""; }
string Operator::GetOpType() const { return content ? content->type : ""; }

Status Operator::GetName(AscendString &name) const {
  name = GetName().c_str();
  return SUCCESS;
}

Status Operator::GetOpType(AscendString &type) const {
  type = GetOpType().c_str();
  return SUCCESS;
}

template <typename T>
Operator &Operator::set(const string &name, const T &value) {
  if (content) content->attributes[name] = value;
  return *this;
}

template <typename T>
Status Operator::get(const string &name, T &value) const {
  if (!content || !content->attributes.count(name)) return FAILED;
  auto found = std::any_cast<T>(&content->attributes.at(name));
  if (!found) return FAILED;
  value = *found;
  return SUCCESS;
}

#define DEFINE(T, GIVEN)                                                                        \
  Operator &Operator::SetAttr(const string &name, GIVEN value) { return set<T>(name, value); }  \
  Operator &Operator::SetAttr(const char *name, GIVEN value) { return set<T>(name, value); }    \
  Status Operator::GetAttr(const string &name, T &value) const { return get<T>(name, value); }  \
  Status Operator::GetAttr(const char *name, T &value) const { return get<T>(name, value); }    \
  void Operator::AttrRegister(const char *name, GIVEN value) { set<T>(name, value); }
#define DEFINE_NUMBER(T) DEFINE(T, T)
#define DEFINE_OBJECT(T) DEFINE(T, const T &)
NUMBERS(DEFINE_NUMBER)
OBJECTS(DEFINE_OBJECT)
Operator &Operator::SetAttr(const char *name, const char *value) { return set<string>(name, value); }

Operator &Operator::SetInput(const string &, const Operator &) { return *this; }
Operator &Operator::SetInput(const char *, const Operator &) { return *this; }
Operator &Operator::SetInput(const string &, const Operator &, const string &) { return *this; }
Operator &Operator::SetInput(const char *, const Operator &, const char *) { return *this; }
Operator &Operator::SetInput(const char *, uint32_t, const Operator &) { return *this; }
Operator &Operator::SetInput(const char *, uint32_t, const Operator &, const char *) { return *this; }
Operator &Operator::AddControlInput(const Operator &) { return *this; }
TensorDesc Operator::GetInputDesc(const string &) const { return TensorDesc(); }
TensorDesc Operator::GetInputDesc(uint32_t) const { return TensorDesc(); }
TensorDesc Operator::GetInputDescByName(const char *) const { return TensorDesc(); }
TensorDesc Operator::GetOutputDesc(const string &) const { return TensorDesc(); }
TensorDesc Operator::GetOutputDesc(uint32_t) const { return TensorDesc(); }
TensorDesc Operator::GetOutputDescByName(const char *) const { return TensorDesc(); }

// Operators by type: those that the plugin registers, and any other that it asks for.
using Creator = std::function<Operator(const AscendString &)>;

std::map<string, Creator> &creators() {
  static auto all = new std::map<string, Creator>;
  return *all;
}

class OperatorCreatorRegister {
 public:
  OperatorCreatorRegister(const char *type, const Creator &creator);
};

OperatorCreatorRegister::OperatorCreatorRegister(const char *type, const Creator &creator) {
  creators()[type] = creator;
}

class OperatorFactory {
 public:
  static Operator CreateOperator(const string &name, const string &type);
  static Operator CreateOperator(const char *name, const char *type);
  static bool IsExistOp(const string &type);
  static bool IsExistOp(const char *type);
};

Operator OperatorFactory::CreateOperator(const string &name, const string &type) {
  auto found = creators().find(type);
  return found == creators().end() ? Operator(name, type) : found->second(name.c_str());
}

Operator OperatorFactory::CreateOperator(const char *name, const char *type) {
  return CreateOperator(string(name), string(type));
}

bool OperatorFactory::IsExistOp(const string &) { return true; }
bool OperatorFactory::IsExistOp(const char *) { return true; }

}  // namespace ge
