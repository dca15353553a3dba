/* A stub of NVIDIA's driver: one GPU, and nothing behind it. STUB_DRIVER_VERSION: as cuDriverGetVersion gives it. */
#include <stdlib.h>
#include <string.h>

int cuInit(unsigned int flags) { return 0; }

int cuDriverGetVersion(int *version) {
  const char *given = getenv("STUB_DRIVER_VERSION");
  *version = given ? atoi(given) : 12040;
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
  strncpy(name, "NVIDIA stub", size);
  return 0;
}

int cuDeviceGetAttribute(int *value, int attribute, int device) {
  *value = attribute == 75 ? 8 : 0; /* compute capability 8.0 */
  return 0;
}

int cuGetErrorName(int error, const char **name) {
  *name = "CUDA_ERROR_UNKNOWN";
  return 0;
}
