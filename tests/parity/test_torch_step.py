"""What PyTorch's step is said to compute and to keep."""

import pytest
import torch
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from parity.measure import torch_step as package
from parity.measure.torch_step import Autocast, torch_step
from parity.measure.work import CLASSES

RESNET = ("model.layers=[1,1,1,1]", "model.width=8", "data.image_size=[96,48]")
SMALL = {
    "pmt/sysu.yaml": (1, ("model.embed_dim=48", "model.depth=2", "model.num_heads=2")),
    "agw/sysu.yaml": (0, (*RESNET, "model.non_local=[0,1,1,0]")),
    "mun/sysu.yaml": (0, (*RESNET, "model.ratios=[2,3]")),
}


def small_step(recipe, *options, device="meta"):
    stage, sizes = SMALL[recipe]
    return torch_step(recipe, stage, (*CLASSES, *sizes, "train.num_instances=2", *options), device)


def test_pytorchs_arithmetic_is_that_of_its_products():
    """PMT's at full size by hand, and MUN's, whose convolutions by channel have a weight of one channel."""
    images, tokens, width, depth = 64, 1 + 21 * 10, 768, 12
    blocks = depth * 3 * 2 * (images * tokens * 12 * width**2 + 2 * images * tokens**2 * width)
    patches = 2 * 2 * images * (tokens - 1) * width * 3 * 16 * 16  # pictures need no gradient
    classifier = 3 * 2 * images * width * 395
    step = torch_step("pmt/sysu.yaml", 1, CLASSES)
    assert step["torch_tflop"] == (blocks + patches + classifier) / 1e12
    assert 1000 < step["torch_launches"] < 1300
    assert torch_step("mun/sysu.yaml", 0, CLASSES)["torch_tflop"] == pytest.approx(3.88, abs=0.01)


@pytest.mark.parametrize("recipe", SMALL)
def test_the_peak_is_that_of_pytorchs_allocator(monkeypatch, recipe):
    """On a CPU, beside the allocator's own events; from what is held before the step on, as they begin with it."""
    held, found = [], []
    begin, step = package.Step.__init__, package.build_step

    def begun(self, tensors):
        begin(self, tensors)
        held.append(self.bytes)

    def profiled(*made):
        return lambda *arguments: follow(step(*made), *arguments)

    def follow(called, *arguments):
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            called(*arguments)
        events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
        total = torch.tensor([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]).cumsum(0)
        found.append(int(total.max()))

    monkeypatch.setattr(package.Step, "__init__", begun)
    followed = small_step(recipe)["torch_peak_gib"] * 2**30
    monkeypatch.setattr(package, "build_step", profiled)
    assert small_step(recipe, device="cpu")["torch_peak_gib"] * 2**30 == followed
    assert found[0] == pytest.approx(followed - held[0], rel=2e-3)  # an operator's own scratch is not followed


@pytest.mark.parametrize(("recipe", "part"), [("pmt/sysu.yaml", 0.8), ("agw/sysu.yaml", 0.6), ("mun/sysu.yaml", 0.6)])
def test_autocast_keeps_less(recipe, part):
    """At full size; a ViT's softmax, LayerNorm and what follows them stay in float32."""
    stage, _ = SMALL[recipe]
    options = (CLASSES, (*CLASSES, "train.amp=float16"))
    whole, mixed = (torch_step(recipe, stage, each)["torch_peak_gib"] for each in options)
    assert 0.5 * whole < mixed < part * whole


def test_autocast_casts_as_cuda_does_and_a_weight_once():
    weight = torch.nn.Parameter(torch.ones(4, 4))
    with Autocast() as casts:
        products = functional.linear(torch.ones(2, 4), weight), torch.ones(2, 4) @ weight
        assert [x.dtype for x in products] == [torch.float16] * 2
        assert functional.softmax(products[0], -1).dtype == torch.float32
        assert (products[0] ** 3).dtype == functional.layer_norm(products[0], (4,)).dtype == torch.float32
        assert functional.gelu(products[0]).dtype == torch.float16
    assert len(casts.weights) == 1
