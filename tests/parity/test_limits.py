"""What a step costs on paper: the counters against numbers derived by hand, and docs/performance.md against both."""

import sys

import pytest
import torch
from torch import nn

from ms_vireid.command.errors import InputError
from parity.measure import limits
from parity.measure.limits import DEVICES, Counts, Work
from torch_ref.engine.optimizer import SGD, AdamW, ParameterGroup
from torch_ref.models.vit import Block

DEVICE = {"float32": 1.0, "TF32/HF32": 2.0, "float16": 4.0, "memory": 1.0}  # TFLOPS and TB/s


@pytest.fixture(scope="module")
def works():
    return limits.works()


def forward_and_backward(layer, *shape, images_need_gradient=True):
    """Counts of a layer on images of this shape, with a gradient that is a tensor of its own."""
    images = torch.empty(shape, device="meta", requires_grad=images_need_gradient)
    layer = layer.to("meta")
    with Counts() as counts:
        result = layer(images)
        result.backward(torch.empty(result.shape, device="meta"))
    return counts


def test_a_linear_layer():
    rows, inputs, outputs = 5, 7, 3
    counts = forward_and_backward(nn.Linear(inputs, outputs), rows, inputs)
    assert counts.flops == 3 * 2 * rows * inputs * outputs  # result, gradients of rows and of weights
    bias_and_sum = outputs + (rows * outputs + outputs)  # read by the product; the bias's gradient, no product
    matrices = rows * inputs + inputs * outputs + rows * outputs  # of each of the three products
    assert counts.products == {4: 4 * (3 * matrices + outputs), 2: 2 * (3 * matrices + outputs)}
    assert counts.moved == {4: 4 * (3 * matrices + bias_and_sum), 2: 2 * (3 * matrices + bias_and_sum)}
    assert counts.launches == 4  # three products and the sum; transpositions are views


@pytest.mark.parametrize(
    ("layer", "forward"),
    [
        (nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False), 2 * (2 * 8 * 5 * 4) * (6 * 9)),
        (nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False, groups=2), 2 * (2 * 8 * 5 * 4) * (3 * 9)),
        (nn.Conv2d(6, 6, 5, padding=2, bias=False, groups=6), 2 * (2 * 6 * 9 * 7) * 25),
        (nn.ConvTranspose2d(6, 4, 2, stride=2, bias=False), 2 * (2 * 4 * 18 * 14) * 6),
    ],
    ids=["plain", "two groups", "depth-wise", "transposed"],
)
def test_a_convolution(layer, forward):
    """Products of all outputs; each gradient takes as many as the forward pass."""
    assert forward_and_backward(layer, 2, 6, 9, 7).flops == 3 * forward
    assert forward_and_backward(layer, 2, 6, 9, 7, images_need_gradient=False).flops == 2 * forward


def test_a_block_of_the_transformer():
    images, tokens, width = 2, 11, 8
    block = Block(width, num_heads=2, mlp_ratio=4, dropout=0.0, drop_path=0.0, layer=1, index=0)
    counts = forward_and_backward(block, images, tokens, width)
    weights = 3 + 1 + 4 + 4  # qkv, projection and MLP, in units of the width squared
    attention = 2 * images * tokens * tokens * width  # scores, and their product with the values
    assert counts.flops == 3 * 2 * (images * tokens * weights * width**2 + attention)


def test_a_step_of_pmt_at_full_size(works):
    images, tokens, width, depth = 64, 1 + 21 * 10, 768, 12
    blocks = depth * 3 * 2 * (images * tokens * 12 * width**2 + 2 * images * tokens**2 * width)
    patches = 2 * 2 * images * (tokens - 1) * width * 3 * 16 * 16  # pictures need no gradient
    classifier = 3 * 2 * images * width * 395
    assert works["PMT ViT-B/16 256x128"].flops == blocks + patches + classifier


@pytest.mark.parametrize(
    ("optimizer", "states"),
    [(lambda groups: AdamW(groups, (0.9, 0.999), 1e-8, 0.01), 2), (lambda groups: SGD(groups, 0.9, True, 0.0), 1)],
    ids=["AdamW", "SGD"],
)
def test_the_fused_update_reads_and_writes_weights_and_states_and_reads_gradients(optimizer, states):
    weights = tuple(nn.Parameter(torch.empty(shape, device="meta")) for shape in ((5, 3), (7,)))
    updater = optimizer([ParameterGroup("all", 1.0, weights, ("a", "b"))])
    for weight in weights:
        weight.grad = torch.empty_like(weight)
    updater.step()
    assert limits.fused_update(updater) == 4 * (15 + 7) * (2 + 1 + 2 * states)


def test_what_is_read_and_written():
    x, y = torch.empty(6, 5, device="meta"), torch.empty(6, 5, device="meta", dtype=torch.int32)
    for compute, launches, bytes_moved in (
        (lambda: x + x, 1, 3 * 120),
        (lambda: x.t()[1:].reshape(4, 6), 0, 0),  # views
        (lambda: torch.empty_like(x), 0, 0),
        (lambda: torch.empty(5, device="meta").expand(6, 5) * x, 1, 20 + 2 * 120),  # the row is in memory once
        (lambda: x.mul_(2.0), 1, 2 * 120),
        (lambda: torch._foreach_mul_([x, x], 2.0), 1, 4 * 120),
        (lambda: x[0, 0].item(), 0, 0),
        (lambda: torch.empty(3) + 1, 0, 0),  # on the host, as an optimiser's number of the step
    ):
        with Counts() as counts:
            compute()
        assert (counts.launches, counts.moved[4]) == (launches, bytes_moved)
    with Counts() as counts:
        y + y
    assert counts.moved == {4: 3 * 120, 2: 3 * 120}  # whole numbers keep their width


def test_the_three_bounds_and_the_batches_that_move_them():
    work = Work(
        batch=10,
        flops=8 * 10**10,
        moved={4: 5 * 10**10, 2: 3 * 10**10},
        fused={4: 2 * 10**10, 2: 10**10},
        update=10**10,
        launches=2000,
        launches_by_weight=9000,
    )
    seconds = limits.bounds(work, DEVICE, "float32", 2000)
    assert seconds == pytest.approx({"arithmetic": 0.08, "bytes": 0.05, "fused": 0.02, "launches": 0.01})
    assert (limits.longest(seconds, "bytes"), limits.longest(seconds, "fused")) == ("arithmetic", "arithmetic")
    seconds = limits.bounds(work, DEVICE, "TF32/HF32", 2000)
    assert (limits.longest(seconds, "bytes"), limits.longest(seconds, "fused")) == ("bytes", "arithmetic")
    seconds = limits.bounds(work, DEVICE, "float16", launches=5000)
    assert seconds == pytest.approx({"arithmetic": 0.02, "bytes": 0.03, "fused": 0.01, "launches": 0.025})
    assert (limits.longest(seconds, "bytes"), limits.longest(seconds, "fused")) == ("bytes", "launches")
    # 0.002 s of arithmetic an image; 0.01 s of update and 0.002 s of other bytes an image
    assert limits.equal_batches(work, DEVICE, seconds) == pytest.approx((12.5, 7.5))
    seconds = limits.bounds(work, DEVICE, "float32", launches=100)
    assert limits.equal_batches(work, DEVICE, seconds)[1] == 0  # the update alone takes longer than the launches


def test_less_precision_is_never_slower_and_fusing_moves_less(works):
    for work in works.values():
        assert work.update < work.fused[2] < work.fused[4] < work.moved[4]
        assert work.launches < work.launches_by_weight
        for device in DEVICES.values():
            full, reduced, half = (limits.bounds(work, device, precision, 1) for precision in limits.PRECISIONS)
            assert full["arithmetic"] > reduced["arithmetic"] > half["arithmetic"]
            assert full["bytes"] == reduced["bytes"] > half["bytes"]


def test_the_page_is_what_the_models_give(works):
    assert limits.PAGE.read_text(encoding="utf-8") == limits.page(works), "run python parity/measure/limits.py --write"


def test_the_command_writes_the_page_and_says_when_it_is_out_of_date(works, tmp_path, monkeypatch, capsys):
    target = tmp_path / "docs" / "performance.md"
    monkeypatch.setattr(limits, "PAGE", target)
    monkeypatch.setattr(limits, "works", lambda: works)
    monkeypatch.setattr(sys, "argv", ["limits.py", "--write"])
    with pytest.raises(InputError, match=r"performance\.md: cannot be written \(No such file"):
        limits.main()
    target.parent.mkdir()
    limits.main()
    monkeypatch.setattr(sys, "argv", ["limits.py"])
    limits.main()
    target.write_text("something else")
    with pytest.raises(SystemExit) as stop:
        limits.main()
    assert stop.value.code == 1
    assert "is not up to date; --write writes it" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["limits.py", "--launches"])
    with pytest.raises(InputError, match="unrecognized arguments: --launches; see --help"):
        limits.main()
