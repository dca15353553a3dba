// The driver's modules: code that the stand-in's NVRTC has compiled for the host (nvrtc.cc), loaded and run.
#include <dlfcn.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <mutex>
#include <string>

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
};
std::mutex lock;  // the code keeps what a block's threads share in memory of its own

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
  *function = new Function{from, entry, std::string("own ") + name};
  return SUCCESS;
}

int cuLaunchKernel(void *function, unsigned x, unsigned y, unsigned z, unsigned width, unsigned height, unsigned depth,
                   unsigned shared, void *stream, void **arguments, void **extra) {
  auto *kernel = static_cast<Function *>(function);
  unsigned grid[] = {x, y, z}, block[] = {width, height, depth};
  if (!(x && y && z && width && height && depth) || width * height * depth > 1024 || y > 65535) return INVALID_VALUE;
  stand_in_count(kernel->name.c_str());
  std::lock_guard<std::mutex> guard(lock);
  if (stand_in::computes()) kernel->module->run(kernel->entry, arguments[0], grid, block);
  return SUCCESS;
}

}  // extern "C"
