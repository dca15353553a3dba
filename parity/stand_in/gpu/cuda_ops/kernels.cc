#include "kernels.h"

#include <map>
#include <mutex>
#include <sstream>
#include <string>

namespace stand_in {

namespace {

// A type as c++filt writes it.
std::string short_name(std::string type) {
  static const std::map<std::string, std::string> SHORT{
    {"long int", "long"}, {"long unsigned int", "unsigned long"}, {"short int", "short"}};
  auto found = SHORT.find(type);
  return found == SHORT.end() ? type : found->second;
}

// Of "cudaError Cast(int, const From*, To*, CUstream_st*) [with From = float; To = bool]": "Cast<float, bool>".
std::string label(const std::string &signature) {
  size_t arguments = signature.find('('), given = signature.find("[with ");
  size_t name = signature.rfind(' ', arguments) + 1;
  std::string types;
  if (given != std::string::npos) {
    std::istringstream parts(signature.substr(given + 6, signature.size() - given - 7));
    for (std::string part; std::getline(parts >> std::ws, part, ';');) {
      size_t equals = part.find(" = ");
      size_t parameter = part.rfind(' ', equals - 1) + 1;  // a value's type stands before
      std::string value = part.substr(equals + 3);
      bool is_parameter = isupper(part[parameter]) && !value.starts_with("std::");  // else what an alias stands for
      if (is_parameter) types += (types.empty() ? "" : ", ") + short_name(value);
    }
  }
  return signature.substr(name, arguments - name) + (types.empty() ? "" : "<" + types + ">");
}

}  // namespace

const std::string &kernel_name(const char *signature) {
  static std::mutex lock;
  static auto &labels = *new std::map<const char *, std::string>;  // threads may count to the very end
  std::lock_guard<std::mutex> guard(lock);
  auto [known, is_new] = labels.try_emplace(signature);
  if (is_new) known->second = label(signature);
  return known->second;
}

}  // namespace stand_in
