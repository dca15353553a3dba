// A library's counters as counts.py finds them, and as STAND_IN_LOG gets them at the end: a line "calls name" each.
#include <cstdio>
#include <map>
#include <mutex>
#include <string>

#include "stand_in.h"

extern "C" {
extern struct counter __start_counters[] __attribute__((weak, visibility("hidden")));
extern struct counter __stop_counters[] __attribute__((weak, visibility("hidden")));
}

namespace {
struct Named {  // never destroyed: threads may count to the very end
  std::mutex lock;
  std::map<std::string, long> calls;
};

Named &named() {
  static Named *counters = new Named;
  return *counters;
}
}  // namespace

extern "C" __attribute__((visibility("hidden"))) long *stand_in_counter(const char *name) {
  std::lock_guard<std::mutex> guard(named().lock);
  return &named().calls[name];
}

extern "C" __attribute__((visibility("hidden"))) void stand_in_count(const char *name) {
  add_call(stand_in_counter(name));
}

// Of this library: the name of what is exported is every library's, and a call would come to the first of them.
static std::string calls() {
  std::string text;
  auto add = [&](long calls, const std::string &name) { text += std::to_string(calls) + " " + name + "\n"; };
  for (const struct counter *counter = __start_counters; counter < __stop_counters; counter++)
    if (counter->calls) add(counter->calls, counter->name);
  std::lock_guard<std::mutex> guard(named().lock);
  for (const auto &[name, calls] : named().calls)
    if (calls) add(calls, name);
  return text;
}

extern "C" const char *stand_in_calls() {
  static thread_local std::string text;
  text = calls();
  return text.c_str();
}

__attribute__((destructor)) static void write_log() {
  const char *path = getenv("STAND_IN_LOG");
  FILE *log = path ? fopen(path, "a") : nullptr;
  if (!log) return;
  fputs(calls().c_str(), log);
  fclose(log);
}
