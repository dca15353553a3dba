/* The machine's GPUs, as the driver and the runtime show them: of compute capability 8.0, for which MindSpore holds
   machine code, or of STAND_IN_CAPABILITY, "9" for one whose driver translates. */
#pragma once
#include <stdlib.h>

#define DEVICE_NAME "stand-in GPU"
enum { DEVICES = 8, COMPILED = 8 };

static inline int capability(void) {
  const char *given = getenv("STAND_IN_CAPABILITY");
  return given ? atoi(given) : COMPILED;
}
