/* The machine's GPUs, as the driver and the runtime show them: of compute capability 8.0. */
#pragma once

#define DEVICE_NAME "stand-in GPU"
enum { DEVICES = 8, CAPABILITY = 8 };
