/* NVIDIA's driver with one GPU of compute capability 8.0. */
#include <string.h>

int cuInit(unsigned flags) { return 0; }

int cuDriverGetVersion(int *version) {
  *version = 12020;
  return 0;
}

int cuDeviceGetCount(int *count) {
  *count = 1;
  return 0;
}

int cuDeviceGet(int *device, int ordinal) {
  *device = ordinal;
  return 0;
}

int cuDeviceGetName(char *name, int size, int device) {
  strncpy(name, "stand-in GPU", size);
  return 0;
}

int cuDeviceGetAttribute(int *value, int attribute, int device) {
  enum { COMPUTE_CAPABILITY_MAJOR = 75 };
  *value = attribute == COMPUTE_CAPABILITY_MAJOR ? 8 : 0;
  return 0;
}

int cuGetErrorName(int error, const char **name) {
  *name = "CUDA_ERROR_OF_STAND_IN";
  return 0;
}
