// What the stand-in's NVRTC makes in the place of a GPU's machine code: a library of the host, behind this.
#pragma once

struct Code {
  char mark[16] = "stand-in's code";
  unsigned long size = 0;  // bytes of the library
};
