/* Operators that are functions of their own. Of each there are two: aclnnXGetWorkspaceSize takes the arguments and
   gives an executor, and aclnnX runs it. aclnn.cc has what all of them do. */
#pragma once

/* Both, for whatever arguments: they are left where they are, and the name is put where no argument is. */
#define ACLNN(name)                                        \
  __asm__(                                                 \
    ".text\n"                                              \
    ".globl " #name "GetWorkspaceSize\n"                   \
    ".type " #name "GetWorkspaceSize, @function\n"         \
    #name "GetWorkspaceSize:\n"                            \
    "  leaq name_of_" #name "(%rip), %r11\n"               \
    "  jmp stand_in_prepare\n"                             \
    ".globl " #name "\n"                                   \
    ".type " #name ", @function\n"                         \
    #name ":\n"                                            \
    "  leaq name_of_" #name "(%rip), %r8\n"                \
    "  jmp stand_in_execute\n"                             \
    "name_of_" #name ": .asciz \"" #name "\"\n");

#ifdef __cplusplus
#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "tensors.h"

// What an operator was handed.
struct aclOpExecutor {
  std::string operation;
  std::vector<uint64_t> arguments;  // integers and pointers, in order
  std::array<double, 8> numbers;    // floating-point numbers, which the processor counts by themselves
  bool repeatable = false;
  long *calls = nullptr;  // of its signature: other memory changes no type

  // The argument of that place among the integers and pointers; stops the process if it is something else.
  bool given(size_t place) const { return arguments.at(place) != 0; }
  stand_in::View tensor(size_t place) const;
  std::optional<stand_in::View> optional_tensor(size_t place) const;
  std::vector<stand_in::View> tensors(size_t place) const;
  stand_in::Dims integers(size_t place) const;  // none if the array is not given
  double scalar(size_t place) const;
  int64_t integer(size_t place) const { return static_cast<int64_t>(arguments.at(place)); }
  bool flag(size_t place) const { return arguments.at(place) & 0xff; }     // the rest of the register is anything
  bool wanted(size_t mask, size_t result) const;  // by an array of flags

 private:
  template <typename T>
  const T &object(size_t place) const;
};

using AclnnDefinition = std::function<void(const aclOpExecutor &)>;
const std::map<std::string, AclnnDefinition> &aclnn_definitions();  // operators.cc
#endif
