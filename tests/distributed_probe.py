"""What the collectives and BatchNorms of two processes give: each writes RANK.npz into the folder that is named."""

import json
import sys
from pathlib import Path

import numpy as np

from ms_vireid.devices import runtime

DEVICES = 2
CHANNELS = 3
FROM_THE_FIRST = {"infrared": [0.1, 65535.0], "none": None, "größer": 2**53}
SHAPES = {"flat": (8, CHANNELS), "maps": (8, CHANNELS, 4, 5)}  # of both processes' batches together


def batch_of(shape):
    """The union batch, far from zero so that E[x^2] - E[x]^2 would not do, and the gradient of the loss."""
    rng = np.random.default_rng(0)
    return (rng.normal(size=shape) + 100).astype(np.float32), rng.normal(size=shape).astype(np.float32)


def batch_norm_of(shape):
    """With weights of its own, in training."""
    from mindspore import Tensor, nn

    cell = (nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d)(CHANNELS, eps=1e-5, momentum=0.9)
    cell.gamma.set_data(Tensor(np.array([0.5, 1.0, 2.0], np.float32)))
    cell.beta.set_data(Tensor(np.array([0.1, 0.2, 0.3], np.float32)))
    return cell.set_train()


def results_of(cell, x, slope, jit):
    """Output, the gradients of x, gamma and beta, and the running averages, of the loss sum(slope * output)."""
    import mindspore as ms
    from mindspore import Tensor

    slope = Tensor(slope)

    def loss(x):
        y = cell(x)
        return (y * slope).sum(), y

    step = ms.value_and_grad(loss, 0, [cell.gamma, cell.beta], has_aux=True)
    (_, y), (of_x, of_weights) = (ms.jit(step) if jit else step)(Tensor(x))
    values = y, of_x, *of_weights, cell.moving_mean, cell.moving_variance
    return [value.asnumpy() for value in values]


def main(folder):
    runtime.set_up("CPU")
    runtime.cap_convolutions()
    from ms_vireid.engine.distributed import RunningStatistics, join, synchronise_batch_norm

    devices = join()
    rank = devices.rank
    found = {}
    for name, shape in SHAPES.items():
        x, slope = (np.split(array, DEVICES)[rank] for array in batch_of(shape))
        for jit in (False, True):
            cell = batch_norm_of(shape)
            synchronise_batch_norm(cell, devices)
            for i, value in enumerate(results_of(cell, x, slope, jit)):
                found[f"{name}.{jit}.{i}"] = value
        own = batch_norm_of(shape)
        results_of(own, x, slope, False)
        found[f"{name}.own_mean"] = own.moving_mean.asnumpy().copy()  # else the average to come
        RunningStatistics(own, devices).average()
        found[f"{name}.averaged_mean"] = own.moving_mean.asnumpy()
        found[f"{name}.averaged_variance"] = own.moving_variance.asnumpy()
    found["any"] = [devices.any(False), devices.any(rank == 1), devices.any(True)]
    found["mean"] = devices.all_reduce_mean(np.array([[rank, 4.0]]))
    found["filled"] = devices.merge_rows(np.array([[1, 2], [0, 0]]) if rank == 0 else None)
    found["broadcast"] = json.dumps(devices.broadcast(FROM_THE_FIRST if rank == 0 else None))
    np.savez(Path(folder) / f"{rank}.npz", **found)


if __name__ == "__main__":
    main(sys.argv[1])
