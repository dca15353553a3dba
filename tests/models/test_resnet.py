"""ResNet-50: its parts, and weights from a file. The ladder compares it with torchvision's."""

import numpy as np
import pytest
import torch
from mindspore import Tensor
from safetensors.numpy import save_file

from ms_vireid.checkpoints.layouts import torch_name
from ms_vireid.checkpoints.pretrained import read_pretrained
from ms_vireid.command.errors import InputError
from ms_vireid.config.models import ResNetConfig
from ms_vireid.models import ResNet
from ms_vireid.models.pretrained import load_backbone
from parity.oracles import torchvision
from torch_ref.models import ResNet as TorchResNet
from torch_ref.models.pretrained import load_backbone as torch_load_backbone

SHALLOW = (1, 2, 1, 1)


def oracle(layers, last_stride, seed=0):
    """torchvision's network with normalisation that is not the identity; stage 4's stride as the field changes it."""
    torch.manual_seed(seed)
    network = torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, list(layers))
    network.layer4[0].conv2.stride = network.layer4[0].downsample[0].stride = (last_stride, last_stride)
    for name, value in network.state_dict().items():
        if name.endswith("running_mean"):
            value.normal_(std=0.3)
        elif value.ndim == 1:
            value.uniform_(0.4, 0.8)
    return network


def give(cells, network):
    """Load the oracle's weights into MindSpore's cells."""
    held = network.state_dict()
    for cell in cells:
        for name, parameter in cell.parameters_and_names():
            parameter.set_data(Tensor(held[torch_name(name)].numpy()))


def images(count, size, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 3, *size)).astype(np.float32)


@pytest.mark.parametrize("shared", [(1, 2, 3, 4), (2, 3, 4)], ids=["stem-apart", "stem-and-stage-1-apart"])
def test_parts_make_the_whole(shared):
    network = oracle(SHALLOW, 1)
    own = tuple(stage for stage in (1, 2, 3, 4) if stage not in shared)
    parts = [ResNet(SHALLOW, stages=own), ResNet(SHALLOW, stem=False, stages=shared)]
    whole = ResNet(SHALLOW)
    give([*parts, whole], network)
    pixels = Tensor(images(1, (64, 32)))
    assert np.array_equal(parts[1](parts[0](pixels)).asnumpy(), whole(pixels).asnumpy())
    assert sum(len(list(part.get_parameters())) for part in parts) == len(list(whole.get_parameters()))


# weights from a file


def torchvision_file(path, **changes):
    """A torchvision state dict of the shallow network, classifier and counters included, with some entries changed."""
    held = {name: value.numpy() for name, value in oracle(SHALLOW, 1, seed=3).state_dict().items()} | changes
    save_file({name: value for name, value in held.items() if value is not None}, path)
    return held


PARTS = [{"stages": ()}, {"stages": ()}, {"stem": False}]


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_a_torchvision_file_fills_both_stems_and_what_they_share_in_both_frameworks(tmp_path, suffix):
    held, path = torchvision_file(tmp_path / "resnet.safetensors"), tmp_path / f"resnet.{suffix}"
    torch.save({name: torch.from_numpy(value) for name, value in held.items()}, tmp_path / "resnet.pth")
    parts = [ResNet(SHALLOW, **part) for part in PARTS]
    load_backbone(parts, read_pretrained(path))
    for part in parts:
        for name, parameter in part.parameters_and_names():
            assert np.array_equal(parameter.asnumpy(), held[torch_name(name)]), name
    mirror = [TorchResNet(SHALLOW, **part) for part in PARTS]
    torch_load_backbone(mirror, read_pretrained(path))
    for part in mirror:
        for name, value in part.state_dict().items():
            assert name.endswith("num_batches_tracked") or np.array_equal(value.numpy(), held[name]), name


@pytest.mark.parametrize(("network", "load"), [(ResNet, load_backbone), (TorchResNet, torch_load_backbone)])
def test_numbers_that_are_none_are_refused(tmp_path, network, load):
    path = tmp_path / "resnet50-0676ba61.safetensors"
    held = torchvision_file(path)
    parts = [network(SHALLOW, **part) for part in PARTS]
    load(parts, read_pretrained(path))
    torchvision_file(path, **{"conv1.weight": np.full_like(held["conv1.weight"], np.nan)})
    with pytest.raises(InputError, match=r"1 \(conv1\.weight is not finite\)"):
        load(parts, read_pretrained(path))


@pytest.mark.parametrize(("network", "load"), [(ResNet, load_backbone), (TorchResNet, torch_load_backbone)])
def test_weights_that_do_not_fit_are_all_named_and_nothing_is_set_and_a_missing_file_says_where_to_find_it(
    tmp_path, network, load
):
    wrong = {"extra": np.zeros(1, np.float32), "bn1.bias": None, "conv1.weight": np.zeros((8, 3, 7, 7), np.float32)}
    torchvision_file(tmp_path / "resnet.safetensors", **wrong)
    parts = [network(SHALLOW, **part) for part in PARTS]
    says = (
        r"does not fit the backbone: 3 \(bn1\.bias is missing, conv1\.weight is \(8, 3, 7, 7\), the model's "
        r"\(64, 3, 7, 7\), extra is not in the model\)"
    )
    with pytest.raises(InputError, match=says):
        load(parts, read_pretrained(tmp_path / "resnet.safetensors"))
    mean = parts[0].bn1.moving_mean.asnumpy() if network is ResNet else parts[0].bn1.running_mean.numpy()
    assert (mean == 0).all()
    with pytest.raises(InputError, match=r"no such file .*gone\.safetensors; torchvision's resnet50 .*or set model"):
        read_pretrained(tmp_path / "gone.safetensors", ResNetConfig.backbone_source)
