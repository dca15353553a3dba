/* Comes before the CUDA runtime of a PyTorch built for CUDA, which would ask the stand-in's driver: there is no device,
   and PyTorch stays on the CPU. */
int cudaGetDeviceCount(int *count) {
  enum { NO_DEVICE = 100 };
  *count = 0;
  return NO_DEVICE;
}
