/* NVIDIA's driver. */
#include <string.h>

#include "machine.h"

int cuInit(unsigned flags) { return 0; }

int cuDriverGetVersion(int *version) {
  *version = 12020;
  return 0;
}

int cuDeviceGetCount(int *count) {
  *count = DEVICES;
  return 0;
}

int cuDeviceGet(int *device, int ordinal) {
  enum { INVALID_DEVICE = 101 };
  *device = ordinal;
  return ordinal >= 0 && ordinal < DEVICES ? 0 : INVALID_DEVICE;
}

int cuDeviceGetName(char *name, int size, int device) {
  strncpy(name, DEVICE_NAME, size);
  return 0;
}

int cuDeviceGetAttribute(int *value, int attribute, int device) {
  enum { COMPUTE_CAPABILITY_MAJOR = 75 };
  *value = attribute == COMPUTE_CAPABILITY_MAJOR ? capability() : 0;
  return 0;
}

int cuGetErrorName(int error, const char **name) {
  *name = "CUDA_ERROR_OF_STAND_IN";
  return 0;
}
