// The driver's modules: code that the stand-in's NVRTC has compiled for the host (nvrtc.cc), loaded and run.
#include <dlfcn.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <mutex>
#include <string>
#include <vector>

#include "../code.h"
#include "stand_in.h"
#include "values.h"

namespace {

enum Error { SUCCESS, INVALID_VALUE, INVALID_IMAGE = 200, NOT_FOUND = 500 };

using Run = void (*)(void (*)(void *), void *, const unsigned *, const unsigned *);
struct Module {
  void *library;
  Run run;
};
struct Function {
  Module *module;
  void (*entry)(void *);
  std::string name;
  size_t words;  // of its arguments
};
struct Tensor {
  const char *begin, *end;
  std::string text;
};
std::mutex lock;  // the code keeps what a block's threads share in memory of its own
thread_local std::vector<Tensor> told;  // tensors of the operator whose kernels come next

stand_in::Type type_named(const std::string &name) {
  int type = 0;
  while (name != stand_in::name(static_cast<stand_in::Type>(type))) type++;
  return static_cast<stand_in::Type>(type);
}

// A launch by its kernel and those of its operator's tensors to which its arguments point.
std::string label(const Function &kernel, const void *arguments) {
  std::string tensors;
  auto *words = static_cast<const char *const *>(arguments);
  for (const Tensor &tensor : told) {
    bool used = false;
    for (size_t i = 0; i < kernel.words; i++) used |= words[i] >= tensor.begin && words[i] < tensor.end;
    if (used) tensors += (tensors.empty() ? "" : " ") + tensor.text;
  }
  return kernel.name + (tensors.empty() ? "" : '\t' + tensors);
}

}  // namespace

extern "C" {

int cuCtxGetCurrent(void **context) {
  static int only;
  *context = &only;
  return SUCCESS;
}

int cuModuleLoadData(void **module, const void *image) {
  Code code;
  memcpy(&code, image, sizeof code);
  if (memcmp(code.mark, Code().mark, sizeof code.mark)) return INVALID_IMAGE;
  char name[] = "/tmp/stand-in-XXXXXX.so";
  int file = mkstemps(name, 3);
  if (file < 0) return INVALID_IMAGE;
  bool written = write(file, static_cast<const char *>(image) + sizeof code, code.size) == (ssize_t)code.size;
  close(file);
  void *library = written ? dlopen(name, RTLD_NOW | RTLD_LOCAL) : nullptr;
  unlink(name);
  if (!library) return INVALID_IMAGE;
  *module = new Module{library, reinterpret_cast<Run>(dlsym(library, "host_run"))};
  return SUCCESS;
}

int cuDevicePrimaryCtxRetain(void **context, int device) { return cuCtxGetCurrent(context); }

int cuCtxSetCurrent(void *context) { return context ? SUCCESS : INVALID_VALUE; }

int cuModuleGetFunction(void **function, void *module, const char *name) {
  auto *from = static_cast<Module *>(module);
  auto entry = reinterpret_cast<void (*)(void *)>(dlsym(from->library, name));
  if (!entry) return NOT_FOUND;
  auto *bytes = static_cast<const unsigned *>(dlsym(from->library, (std::string(name) + "_bytes").c_str()));
  *function = new Function{from, entry, std::string("own ") + name, bytes ? *bytes / sizeof(void *) : 0};
  return SUCCESS;
}

// By tensors.h, before the operator launches: its inputs, then its outputs.
void stand_in_tensors(int count, void *const *data, const int *ranks, int64_t *const *shapes,
                      const char *const *types) {
  told.clear();
  for (int i = 0; i < count; i++) {
    stand_in::Dims shape(shapes[i], shapes[i] + ranks[i]);
    stand_in::View tensor(type_named(types[i]), data[i], shape);
    auto *begin = static_cast<const char *>(data[i]);
    told.push_back({begin, begin + tensor.size() * stand_in::width(tensor.type), stand_in::described(tensor)});
  }
}

int cuLaunchKernel(void *function, unsigned x, unsigned y, unsigned z, unsigned width, unsigned height, unsigned depth,
                   unsigned shared, void *stream, void **arguments, void **extra) {
  auto *kernel = static_cast<Function *>(function);
  unsigned grid[] = {x, y, z}, block[] = {width, height, depth};
  if (!(x && y && z && width && height && depth) || width * height * depth > 1024 || y > 65535) return INVALID_VALUE;
  stand_in_count(label(*kernel, arguments[0]).c_str());
  std::lock_guard<std::mutex> guard(lock);
  if (stand_in::computes()) kernel->module->run(kernel->entry, arguments[0], grid, block);
  return SUCCESS;
}

}  // extern "C"
