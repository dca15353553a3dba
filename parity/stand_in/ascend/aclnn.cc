// What all functions of operators do.
//
// aclnnXGetWorkspaceSize ends with two pointers, to where the caller wants the size of the workspace and the executor.
// Only the operator's documentation tells how many arguments come before them. But both point to variables of the caller
// that have just been set to 0: so it takes the first two neighbours that point to zeros on the stack. The
// workspace's size stays 0.
#include "aclnn.h"

#include "runtime.h"
#include "stand_in.h"
#include "values.h"

using namespace stand_in;

// The eleventh register has the operator's name. Arguments are in six registers and eight for floating-point numbers,
// and what those do not hold is on the stack, above the return address.
__asm__(R"(
  .text
  .globl stand_in_prepare
  .hidden stand_in_prepare
stand_in_prepare:
  pushq %rbp
  movq %rsp, %rbp
  subq $128, %rsp
  movq %rdi, -128(%rbp)
  movq %rsi, -120(%rbp)
  movq %rdx, -112(%rbp)
  movq %rcx, -104(%rbp)
  movq %r8, -96(%rbp)
  movq %r9, -88(%rbp)
  movsd %xmm0, -80(%rbp)
  movsd %xmm1, -72(%rbp)
  movsd %xmm2, -64(%rbp)
  movsd %xmm3, -56(%rbp)
  movsd %xmm4, -48(%rbp)
  movsd %xmm5, -40(%rbp)
  movsd %xmm6, -32(%rbp)
  movsd %xmm7, -24(%rbp)
  leaq -128(%rbp), %rdi
  leaq 16(%rbp), %rsi
  movq %r11, %rdx
  call stand_in_prepared
  leave
  ret
)");

namespace {

struct Registers {
  uint64_t integers[6];
  double numbers[8];
};

constexpr size_t MOST_ARGUMENTS = 64;
constexpr uint64_t LARGEST_FRAME = 1 << 16;  // bytes of the caller's variables

std::string signature(const aclOpExecutor &executor) {
  std::string text;
  for (uint64_t argument : executor.arguments)
    if (std::string type = described(argument); !type.empty()) text += (text.empty() ? "" : ", ") + type;
  return executor.operation + "(" + text + ")";
}

}  // namespace

extern "C" {

__attribute__((visibility("hidden"))) int stand_in_prepared(Registers *registers, uint64_t *stack, const char *name) {
  auto argument = [&](size_t place) { return place < 6 ? registers->integers[place] : stack[place - 6]; };
  auto is_zero_of_caller = [&](uint64_t value) {
    uint64_t lowest = reinterpret_cast<uint64_t>(stack);
    return value >= lowest && value < lowest + LARGEST_FRAME && value % 8 == 0 &&
           *reinterpret_cast<uint64_t *>(value) == 0;
  };
  size_t number = 0;
  while (!is_zero_of_caller(argument(number)) || !is_zero_of_caller(argument(number + 1)))
    if (++number == MOST_ARGUMENTS) stop(std::string("no place for the executor of ") + name);

  auto executor = new aclOpExecutor{name};
  for (size_t place = 0; place < number; place++) executor->arguments.push_back(argument(place));
  std::copy(registers->numbers, registers->numbers + 8, executor->numbers.begin());
  *reinterpret_cast<aclOpExecutor **>(argument(number + 1)) = executor;
  return 0;
}

__attribute__((visibility("hidden"))) int stand_in_execute(void *, uint64_t, aclOpExecutor *executor, void *,
                                                           const char *name) {
  if (!executor || executor->operation != name) stop(std::string(name) + " is run without an executor of its own");
  if (!executor->calls) executor->calls = stand_in_counter(signature(*executor).c_str());
  add_call(executor->calls);
  if (computes()) {
    finish_copies();
    auto definition = aclnn_definitions().find(name);
    if (definition == aclnn_definitions().end()) stand_in_unknown(name);
    definition->second(*executor);
  }
  if (!executor->repeatable) delete executor;
  return 0;
}

int aclSetAclOpExecutorRepeatable(aclOpExecutor *executor) {
  executor->repeatable = true;
  return 0;
}

int aclDestroyAclOpExecutor(aclOpExecutor *executor) {
  delete executor;
  return 0;
}

int aclnnInit(const char *) {
  COUNT("aclnnInit");
  return 0;
}

int aclnnFinalize() {
  COUNT("aclnnFinalize");
  return 0;
}

// Of a thread's memory for arguments, which here is the heap.
int InitHugeMemThreadLocal(void *, bool) {
  COUNT("InitHugeMemThreadLocal");
  return 0;
}

void UnInitHugeMemThreadLocal(void *, bool) { COUNT("UnInitHugeMemThreadLocal"); }

void ReleaseHugeMem(void *, bool) { COUNT("ReleaseHugeMem"); }

}

template <typename T>
const T &aclOpExecutor::object(size_t place) const {
  if (place >= arguments.size() || !lives<T>(arguments[place]))
    stop(operation + "'s argument " + std::to_string(place) + " is not what was expected");
  return *reinterpret_cast<const T *>(arguments[place]);
}

View aclOpExecutor::tensor(size_t place) const { return object<aclTensor>(place).view(); }

std::optional<View> aclOpExecutor::optional_tensor(size_t place) const {
  return given(place) ? std::optional(tensor(place)) : std::nullopt;
}

std::vector<View> aclOpExecutor::tensors(size_t place) const {
  std::vector<View> views;
  for (const aclTensor *one : object<aclTensorList>(place).values) {
    if (!one) stop(operation + " with a list that has gaps");
    views.push_back(one->view());
  }
  return views;
}

Dims aclOpExecutor::integers(size_t place) const { return given(place) ? object<aclIntArray>(place).values : Dims(); }

double aclOpExecutor::scalar(size_t place) const { return object<aclScalar>(place).value(); }

bool aclOpExecutor::wanted(size_t mask, size_t result) const { return object<aclBoolArray>(mask).values.at(result); }
