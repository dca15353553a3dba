/* The operators that update weights, which they write in place: their only output is of no use. */
#include "launcher.h"

static int launch_elements(const char *kernel, const char *type, int64_t count, const void **addresses, int number,
                           void *arguments, void *stream) {
  char name[64];
  int width = is_half(type) ? 8 : 4;
  if (count % width) width = 1;
  for (int i = 0; i < number; i++)
    if ((uintptr_t)addresses[i] % 16) width = 1;
  snprintf(name, sizeof name, "%s_%s_%d", kernel, is_half(type) ? "half" : "float", width);
  int64_t threads = LANES * ROWS * width;
  return launch(name, (count + threads - 1) / threads, 1, ROWS, arguments, stream);
}

static int update(const char *kernel, Update a, void **data, int64_t **shapes, int states, void *stream) {
  a.weight = data[0], a.state = data[1], a.second_state = data[states];
  a.gradient = data[1 + states], a.scalars = data[2 + states], a.group = data[3 + states];
  a.limits = shapes[4 + states][0] == 2 ? data[4 + states] : 0, a.applies = data[5 + states];
  a.count = shapes[0][0], a.columns = shapes[2 + states][1];
  const void *used[] = {a.weight, a.state, a.second_state, a.gradient};
  return launch_elements(kernel, "float32", a.count, used, 4, &a, stream);
}

/* weight, exp_avg, exp_avg_sq, gradient [n], scalars [groups, numbers], group [1], limits [2] or, if none, [1],
   applies bool [] */
EXPORTED int adamw(ARGUMENTS) { return update("adamw", (Update){0}, data, shapes, 2, stream); }

/* weight, momentum_buffer, gradient [n], scalars, group, limits, applies */
EXPORTED int sgd(ARGUMENTS) { return update("sgd", (Update){0}, data, shapes, 1, stream); }
EXPORTED int sgd_nesterov(ARGUMENTS) { return update("sgd", (Update){.nesterov = 1}, data, shapes, 1, stream); }

/* gradient [n], scale [] -> gradient / scale */
EXPORTED int unscaled(ARGUMENTS) {
  Scaled a = {.out = data[2], .x = data[0], .scale = data[1], .count = elements(ranks[0], shapes[0])};
  const void *used[] = {a.out, a.x};
  return launch_elements("unscaled", types[0], a.count, used, 2, &a, stream);
}

/* copy float16 [n], weight float32 [n] */
EXPORTED int halved(ARGUMENTS) {
  Scaled a = {.out = data[0], .x = data[1], .count = elements(ranks[1], shapes[1])};
  const void *used[] = {a.out, a.x};
  return launch_elements("halved", "float32", a.count, used, 2, &a, stream);
}
