"""A compiled update that depends on the loss, on a GPU: MindSpore 2.10 never ends it if the loss takes a view by an
index (`x[:, None]`), and ends it if the view is an operator's (`expand_dims`). Argument: "index" or "operator".

The index's gradient is a StridedSliceGrad whose input and output have one shape. In front of a branch, the runtime asks
whether such an operator does anything, for which it reads its arguments on the host, for which it waits until the queue
is empty that this very question is in.
"""

import sys

import numpy as np

from ms_vireid.devices import runtime


def main(way: str) -> None:
    runtime.set_up("GPU")
    import mindspore as ms
    from mindspore import Parameter, Tensor, ops

    weight = Parameter(Tensor(np.ones((4, 6), np.float32)))

    def loss(x):
        y = weight * x
        column = y[:, None] if way == "index" else ops.expand_dims(y, 1)
        return ops.square(column - ops.expand_dims(y, 0)).sum()

    value_and_gradients = ms.value_and_grad(loss, None, [weight])

    @ms.jit
    def step(x):
        value, gradients = value_and_gradients(x)
        if value >= 0:
            ops.assign(weight, weight - gradients[0])
        return value

    print("begun", flush=True)
    step(Tensor(np.ones((4, 6), np.float32))).asnumpy()
    print("ended", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
