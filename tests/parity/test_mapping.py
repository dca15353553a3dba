import numpy as np
from mindspore import nn

from parity.mapping import differences, twins, values


def test_parameters_have_pytorchs_names_and_keep_their_path():
    network = nn.SequentialCell(nn.Dense(2, 3), nn.SequentialCell(nn.BatchNorm1d(3), nn.LayerNorm([3])))
    batch_norm = ["1.0.running_mean", "1.0.running_var", "1.0.weight", "1.0.bias"]
    assert list(values(network)) == ["0.weight", "0.bias", *batch_norm, "1.1.weight", "1.1.bias"]
    assert [twin.name for twin in twins(network)][-2:] == ["1.1.gamma", "1.1.beta"]


def test_a_shared_parameter_is_named_once():
    class Tied(nn.Cell):
        def __init__(self):
            super().__init__()
            self.first = nn.Dense(3, 3, has_bias=False)
            self.second = nn.Dense(3, 3, has_bias=False)
            self.second.weight = self.first.weight

    assert [twin.torch_name for twin in twins(Tied())] == ["first.weight"]


def test_every_difference_is_listed():
    held, wanted = {"a": np.zeros(1), "b": np.zeros((2, 3)), "c": 0.0}, {"b": np.zeros((3, 2)), "c": 0.0, "d": 1.0}
    assert differences(held, wanted, "network") == [
        "d is missing",
        "a is not in the network",
        "b is [2, 3], the network's is [3, 2]",
    ]
