// CUDA's run-time compiler: compiles CUDA C++ for the host, with g++ and host.h, which lies beside the libraries.
#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>

#include "code.h"
#include "stand_in.h"

namespace {

enum Error { SUCCESS, COMPILATION = 6 };
struct Program {
  std::string source, log, code;
};

std::string read(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string header() {
  Dl_info where;
  dladdr(reinterpret_cast<void *>(&header), &where);
  std::string library = where.dli_fname;
  return library.substr(0, library.rfind('/')) + "/host.h";
}

}  // namespace

extern "C" {

int nvrtcVersion(int *major, int *minor) {
  COUNT("nvrtcVersion");
  *major = 11, *minor = 8;
  return SUCCESS;
}

int nvrtcCreateProgram(void **program, const char *source, const char *, int, const char **, const char **) {
  COUNT("nvrtcCreateProgram");
  *program = new Program{source, "", ""};
  return SUCCESS;
}

int nvrtcDestroyProgram(void **program) {
  COUNT("nvrtcDestroyProgram");
  delete static_cast<Program *>(*program);
  *program = nullptr;
  return SUCCESS;
}

int nvrtcCompileProgram(void *made, int count, const char **options) {
  COUNT("nvrtcCompileProgram");
  auto *program = static_cast<Program *>(made);
  char folder[] = "/tmp/stand-in-XXXXXX";
  if (!mkdtemp(folder)) return COMPILATION;
  std::string base = std::string(folder) + "/kernels";
  std::ofstream(base + ".cc") << program->source;
  bool debug = std::count(options, options + count, std::string_view("--device-debug"));  // without optimisations
  std::string command = std::string("g++ -O") + (debug ? "0" : "2") + " -std=c++20 -w -shared -fPIC -include '" +
                        header() + "' " + base + ".cc -o " + base + ".so > " + base + ".log 2>&1";
  int status = system(command.c_str());
  program->log = read(base + ".log");
  if (!status) {
    std::string library = read(base + ".so");
    Code code;
    code.size = library.size();
    program->code = std::string(reinterpret_cast<char *>(&code), sizeof code) + library;
  }
  system((std::string("rm -r ") + folder).c_str());
  return status ? COMPILATION : SUCCESS;
}

int nvrtcGetProgramLogSize(void *program, size_t *size) {
  COUNT("nvrtcGetProgramLogSize");
  *size = static_cast<Program *>(program)->log.size() + 1;
  return SUCCESS;
}

int nvrtcGetProgramLog(void *program, char *log) {
  COUNT("nvrtcGetProgramLog");
  strcpy(log, static_cast<Program *>(program)->log.c_str());
  return SUCCESS;
}

int nvrtcGetCUBINSize(void *program, size_t *size) {
  COUNT("nvrtcGetCUBINSize");
  *size = static_cast<Program *>(program)->code.size();
  return SUCCESS;
}

int nvrtcGetCUBIN(void *program, char *code) {
  COUNT("nvrtcGetCUBIN");
  auto &held = static_cast<Program *>(program)->code;
  memcpy(code, held.data(), held.size());
  return SUCCESS;
}

}  // extern "C"
