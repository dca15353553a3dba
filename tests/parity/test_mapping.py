import pytest
from mindspore import nn

from parity.mapping import differences, twins


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Dense(2, 3), {"weight": (3, 2), "bias": (3,)}),
        (nn.LayerNorm([4]), {"weight": (4,), "bias": (4,)}),
        (nn.BatchNorm2d(4), {"weight": (4,), "bias": (4,), "running_mean": (4,), "running_var": (4,)}),
        (nn.GroupNorm(2, 4), {"weight": (4,), "bias": (4,)}),
        (nn.Embedding(5, 3), {"weight": (5, 3)}),
        (nn.PReLU(), {"weight": (1,)}),
        (nn.Conv1d(2, 4, 3), {"weight": (4, 2, 3)}),
        (nn.Conv2d(2, 4, 3, group=2), {"weight": (4, 1, 3, 3)}),
        (nn.Conv2dTranspose(2, 4, 3), {"weight": (2, 4, 3, 3)}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Cell) else "",
)
def test_a_layers_parameters_have_pytorchs_names_and_shapes(layer, expected):
    assert {twin.torch_name: twin.torch_shape for twin in twins(layer)} == expected


def test_names_inside_a_network_keep_their_path():
    network = nn.SequentialCell(nn.Dense(2, 3), nn.SequentialCell(nn.LayerNorm([3])))
    assert [twin.torch_name for twin in twins(network)] == ["0.weight", "0.bias", "1.0.weight", "1.0.bias"]
    assert [twin.name for twin in twins(network)] == ["0.weight", "0.bias", "1.0.gamma", "1.0.beta"]


def test_a_shared_parameter_is_named_once():
    class Tied(nn.Cell):
        def __init__(self):
            super().__init__()
            self.first = nn.Dense(3, 3, has_bias=False)
            self.second = nn.Dense(3, 3, has_bias=False)
            self.second.weight = self.first.weight

    assert [twin.torch_name for twin in twins(Tied())] == ["first.weight"]


def test_every_difference_is_listed():
    held, wanted = {"a": (1,), "b": (2, 3), "c": ()}, {"b": (3, 2), "c": (), "d": (4,)}
    assert differences(held, wanted, "network") == [
        "d is missing",
        "a is not in the network",
        "b is [2, 3], the network's is [3, 2]",
    ]
