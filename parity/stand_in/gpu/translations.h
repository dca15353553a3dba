// The driver's cache of modules that it has translated for a newer GPU: a file for each, if that can be written.
#pragma once
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

inline std::filesystem::path cache_of_translations() {
  const char *home = getenv("HOME"), *chosen = getenv("CUDA_CACHE_PATH");
  return chosen ? chosen : std::string(home ? home : "") + "/.nv/ComputeCache";
}

inline bool keeps_translations() {
  const char *disabled = getenv("CUDA_CACHE_DISABLE");
  return !(disabled && atoi(disabled));
}

// How many there are.
inline int translations() {
  int found = 0;
  std::error_code failed;
  if (keeps_translations())
    for (auto &entry : std::filesystem::recursive_directory_iterator(cache_of_translations(), failed))
      found += entry.is_regular_file();
  return found;
}

inline void translate_module(const std::string &name) {
  constexpr int SIZE = 1000, MICROSECONDS = 3000;  // really 0.9 MB and 0.5 s
  auto file = cache_of_translations() / name.substr(name.size() - 1) / name;
  std::error_code failed;
  if (keeps_translations() && std::filesystem::exists(file, failed)) return;
  usleep(MICROSECONDS);
  const char *room = getenv("CUDA_CACHE_MAXSIZE");
  if (!keeps_translations() || (room && SIZE * (translations() + 1) > atoll(room))) return;
  std::filesystem::create_directories(file.parent_path(), failed);
  if (!failed) std::ofstream(file) << std::string(SIZE, 'x');
}
