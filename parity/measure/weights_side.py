"""The weights that both frameworks begin with, made in a process that imports both. Import it after
`runtime.set_up`."""

from collections.abc import Callable

import numpy as np

from ms_vireid.models import build_model
from parity.mapping import counters, twins
from parity.measure.workers import Work


def prepare(work: Work) -> Callable:
    config = work.load()

    def make(_times: int) -> None:
        pairs = twins(build_model(config))
        values = {twin.name: twin.parameter.asnumpy() for twin in pairs}
        np.savez(work.weights("mindspore"), **values)
        torch_values = {twin.torch_name: values[twin.name] for twin in pairs}
        np.savez(work.weights("torch"), **torch_values, **dict.fromkeys(counters(pairs), np.array(0)))

    return make
