"""The CPU kernels against MindSpore's own operators."""

from collections import defaultdict

import mindspore as ms
import numpy as np
import psutil
import pytest
from mindspore import Tensor, nn, ops

from ms_vireid.backends.choosing import backend_named
from ms_vireid.backends.numba import base
from ms_vireid.backends.numba.base import array, memory
from ms_vireid.backends.numba.replacements import CELLS, TABLE
from ms_vireid.backends.numba.transformer import Attention as AttentionKernel
from ms_vireid.command.errors import InputError
from ms_vireid.config import LossConfig
from ms_vireid.losses.stage import StageLoss
from ms_vireid.models.agw import NonLocal
from ms_vireid.models.auxiliary_generator import CrossModalityLearner, IntraModalityLearner
from ms_vireid.models.layers import Dropout, DropPath, GeM, pointwise
from ms_vireid.models.noise import path_factors, position_noise
from ms_vireid.models.resnet import Bottleneck, ResNet, batch_norm, convolution
from ms_vireid.models.vit import Attention, PatchEmbed, dense, layer_norm
from ms_vireid.optimizers.adamw import AdamW
from ms_vireid.optimizers.groups import ParameterGroup
from ms_vireid.optimizers.sgd import SGD
from ms_vireid.replaceable import Replacement

KEY = Tensor(1234, ms.int32)
PREPARE = (lambda cell: None, backend_named("numba").accelerate)  # for the operators, and for the kernels


def values(*shape, seed=0):
    return Tensor(np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32))


def dropout():
    noise = position_noise(KEY, 10, 6).reshape(2, 5, 6)
    return Dropout(0.3, 1, parts=4), values(2, 5, 24), (noise, None)


class Dropped(nn.Cell):
    """With factors that nobody wants the gradient of."""

    def __init__(self):
        super().__init__()
        self.path = DropPath(0.4, 1)

    def construct(self, x):
        return self.path(x, (None, path_factors(KEY, (0.1, 0.4), x.shape[0])))


CASES = {
    "GELU": lambda: (nn.GELU(approximate=False), 3.0 * values(2, 5, 7)),
    "patches": lambda: (PatchEmbed((10, 8), 4, 3, 5), values(2, 3, 10, 8)),
    "LayerNorm": lambda: (layer_norm(19), values(3, 70, 19)),
    "MindSpore's LayerNorm": lambda: (nn.LayerNorm([19], epsilon=1e-5), values(3, 70, 19)),
    "Dense": lambda: (dense(19, 6), values(3, 70, 19)),
    "Attention": lambda: (Attention(12, 3, 0.0, 0), values(2, 5, 12), None),
    "Dropout": dropout,
    "DropPath": lambda: (Dropped(), values(6, 5, 24)),
    "GeM": lambda: (GeM(3.0), ops.abs(values(2, 5, 4, 3))),
    "GeM of another power": lambda: (GeM(2.0), ops.abs(values(2, 5, 4, 3))),
    "1x1 convolution with bias": lambda: (pointwise(20, 7), values(2, 20, 5, 3)),
    "1x1 convolution": lambda: (convolution(20, 37, 1), values(2, 20, 5, 3)),
    "3x3 convolution": lambda: (convolution(20, 37, 3), values(2, 20, 5, 3)),
    "3x3 convolution, stride 2": lambda: (convolution(6, 4, 3, 2), values(2, 6, 7, 5)),
    "1x1 convolution, stride 2": lambda: (convolution(6, 4, 1, 2), values(2, 6, 7, 4)),
    "7x7 convolution, stride 2": lambda: (convolution(3, 4, 7, 2), values(2, 3, 12, 5)),
    "3x3 convolution, Winograd": lambda: (convolution(64, 65, 3), values(2, 64, 5, 8)),
    "BatchNorm": lambda: (batch_norm(5), 2.0 * values(4, 5, 3, 2) + 1.0),
    "Bottleneck": lambda: (Bottleneck(16, 4, 1), values(4, 16, 5, 3)),
    "Bottleneck, projected": lambda: (Bottleneck(8, 4, 2), values(4, 8, 5, 3)),
    "non-local block": lambda: (NonLocal(8, 3), values(4, 8, 5, 3)),
    "stem": lambda: (ResNet(width=4, stages=()), values(4, 3, 30, 18)),
    "intra-modality learner": lambda: (IntraModalityLearner(8), values(2, 8, 12, 12)),
    "cross-modality learner": lambda: (CrossModalityLearner(4), values(2, 4, 12, 24), values(2, 4, 12, 24, seed=1)),
}


# Cells that the kernel of the cell around them takes with it.
PART_OF_A_KERNEL = defaultdict(set) | {
    "Bottleneck": {nn.BatchNorm2d.construct},
    "non-local block": {nn.BatchNorm2d.construct},
    "stem": {nn.BatchNorm2d.construct},
    "intra-modality learner": {nn.Conv2d.construct},
    "cross-modality learner": {nn.Conv2d.construct},
}


def made(case, training):
    cell, *inputs = CASES[case]()
    for i, weight in enumerate(cell.get_parameters()):
        if weight.requires_grad:
            weight.set_data(values(*weight.shape, seed=i) + 0.1)
    return cell.set_train(training), inputs


def gelu():
    cell = nn.GELU(approximate=False)
    backend_named("numba").accelerate(cell)
    return cell


def everything(cell, inputs):
    """The output, the gradients of all floating-point inputs and of the weights, and the running averages."""
    floating = tuple(i for i, x in enumerate(inputs) if isinstance(x, Tensor) and x.dtype == ms.float32 and x.ndim > 1)
    slope = values(*cell(*inputs).shape, seed=9)

    def loss(*inputs):
        output = cell(*inputs)
        return (output * slope).sum(), output

    weights = cell.trainable_params()
    (_, output), gradients = ms.value_and_grad(loss, floating, weights or None, has_aux=True)(*inputs)
    of_inputs, of_weights = gradients if weights else (gradients, ())
    of_inputs = of_inputs if isinstance(of_inputs, tuple) else (of_inputs,)
    averages = [p for p in cell.get_parameters() if not p.requires_grad]
    return [x.asnumpy().copy() for x in (output, *of_inputs, *of_weights, *averages)]


def assert_alike(case, training, change=lambda cell: None):
    """That the kernels and the operators compute the same."""
    results = []
    for prepare in PREPARE:
        cell, inputs = made(case, training)
        change(cell)
        prepare(cell)
        results.append(everything(cell, inputs))
    for operators, kernel in zip(*results, strict=True):
        # Sums of up to 585 float32 products, normalised over few positions; that of a bias before BatchNorm is 0.
        assert kernel == pytest.approx(operators, abs=2e-5 * max(np.abs(operators).max(), 0.01))


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("case", CASES)
def test_a_kernel_computes_what_the_operators_do(case, training):
    assert_alike(case, training)


@pytest.fixture
def taken(monkeypatch):
    """The methods whose kernels are called, in order."""
    calls = []

    def counted(kernel):
        def count(cell, *inputs):
            calls.append(type(cell).construct)
            return kernel(cell, *inputs)

        return count

    for key in CELLS:
        monkeypatch.setitem(TABLE, key, Replacement(counted(TABLE[key].by), knows=TABLE[key].knows))
    return calls


def kernels_of(cell):
    """The methods of its cells that the table has."""
    return {type(part).construct for _, part in cell.cells_and_names()} & set(CELLS)


@pytest.mark.parametrize("case", CASES)
def test_a_kernel_computes_where_it_is_installed_and_nowhere_else(case, taken):
    cell, inputs = made(case, True)
    everything(cell, inputs)
    assert not taken
    compiled = ms.jit(cell.construct)(*inputs)
    assert not taken
    backend_named("numba").accelerate(cell)
    output = cell(*inputs)
    assert output.shape == compiled.shape
    assert set(taken) == kernels_of(cell) - PART_OF_A_KERNEL[case]


def test_every_cell_of_the_table_has_a_case():
    assert set().union(*(kernels_of(made(case, True)[0]) for case in CASES)) == set(CELLS)


@pytest.mark.parametrize("case", CASES)
def test_a_hooked_cell_computes_by_the_same_backend(case):
    cell, inputs = made(case, True)
    backend_named("numba").accelerate(cell)
    expected = everything(cell, inputs)
    cell, inputs = made(case, True)
    backend_named("numba").accelerate(cell)
    seen = []
    for _, part in cell.cells_and_names():
        part.register_forward_hook(lambda hooked, _inputs, _output: seen.append(type(hooked)))
    for one, other in zip(everything(cell, inputs), expected, strict=True):
        assert np.array_equal(one, other)
    assert type(cell) in seen
    assert case != "Bottleneck" or nn.Conv2d in seen  # within a block


def part_of(cell, path):
    for name in path.split("."):
        cell = cell[int(name)] if name.isdigit() else getattr(cell, name)
    return cell


PARTS = {
    "Bottleneck": ("bn2", "conv1"),
    "Bottleneck, projected": ("downsample.1", "downsample.0"),
    "non-local block": ("W.1", "theta"),
    "stem": ("bn1", "conv1"),
    "intra-modality learner": ("bn1", "spatial"),
    "cross-modality learner": ("bn", "transposed.1"),
    "Attention": ("proj_drop", "qkv"),
}


@pytest.mark.parametrize("case", PARTS)
def test_a_part_has_its_own_flag_and_may_be_frozen(case):
    """The first part is in evaluation, as a frozen BatchNorm is, and the second does not learn."""

    def change(cell):
        part_of(cell, PARTS[case][0]).set_train(False)
        for weight in part_of(cell, PARTS[case][1]).get_parameters():
            weight.requires_grad = False

    assert_alike(case, True, change)


def changed(cell, path, value):
    """Make a part of a cell another, or give it another setting."""
    parts, _, name = path.rpartition(".")
    owner = part_of(cell, parts) if parts else cell
    if name.isdigit():
        owner[int(name)] = value
    else:
        setattr(owner, name, value)
    return cell


def own(channels, kernel, **options):
    return nn.Conv2d(channels, channels, kernel, **{"pad_mode": "pad", "group": channels} | options)


def rebuilt(**options):
    return nn.Conv2dTranspose(4, 4, 4, **{"stride": 4, "pad_mode": "valid"} | options)


UNKNOWN = {
    "non-local block": {"W": nn.SequentialCell(pointwise(3, 8), batch_norm(8), nn.ReLU())},
    "intra-modality learner": {
        "first": own(4, 5, padding=1),
        "second": own(4, 7, padding=3, has_bias=True),
        "spatial": own(32, 3, padding=2, dilation=2),
        "expand": pointwise(8, 32, bias=True),
        "reduce": nn.Conv2d(32, 8, 1, 2, "valid"),
        "spatial.has_bias": True,
    },
    "cross-modality learner": {
        "pools.1": nn.AvgPool2d(4, 2, "valid"),
        "transposed.1": rebuilt(has_bias=True),
        "transposed.0": nn.Conv2dTranspose(4, 6, 2, 2, "valid"),
        "transposed.1.output_padding": 1,
        "transposed.1.stride": (3, 3),
        "ratios": (2, 3, 6, 12),
        "fuse": pointwise(32, 4, bias=True),
    },
}


@pytest.mark.parametrize(("case", "path"), [(case, path) for case, paths in UNKNOWN.items() for path in paths])
def test_a_kernel_says_which_settings_it_does_not_know(case, path):
    cell = changed(made(case, True)[0], path, UNKNOWN[case][path])
    assert not TABLE[type(cell).construct].knows(cell)


def test_all_of_the_table_that_says_what_it_knows_has_been_asked():
    assert {type(made(case, True)[0]).construct for case in UNKNOWN} == {key for key in TABLE if TABLE[key].knows}


@pytest.mark.parametrize("parts", [1, 4])
def test_dropout_takes_the_number_that_the_cell_holds(parts):
    noise, x = position_noise(KEY, 10, 6).reshape(2, 5, 6), values(2, 5, 6 * parts)
    by_backend = []
    for prepare in PREPARE:
        cell = Dropout(0.3, 1, parts=parts).set_train()
        cell.number = 12345
        prepare(cell)
        by_backend.append(cell(x, (noise, None)).asnumpy())
    assert np.array_equal(*by_backend)


def test_drop_path_of_one_factor_scales_all_samples():
    x, factors = values(6, 5, 24), Tensor(np.full((2, 1), 3.0, np.float32))
    cell = DropPath(0.4, 1).set_train()
    backend_named("numba").accelerate(cell)
    assert np.array_equal(cell(x, (None, factors)).asnumpy(), 3.0 * x.asnumpy())


def test_heads_of_another_width_and_maps_of_another_size_are_refused():
    attention, learner = Attention(12, 3, 0.0, 0), CrossModalityLearner(4)
    for cell in (attention, learner):
        backend_named("numba").accelerate(cell)
    attention.head_dim = 2
    with pytest.raises(ValueError, match="size"):
        attention(values(2, 5, 12), None)
    with pytest.raises(ValueError, match="shape"):
        learner(values(2, 4, 12, 12), values(2, 4, 12, 24))


def stage_loss():
    """A loss of two terms, and rows of what they take, visible ones first."""
    loss = StageLoss(LossConfig.model_validate({"id": {"weight": 1.0}, "triplet": {"weight": 0.5, "margin": 0.3}}), 2)
    logits, features = values(8, 3), values(8, 5, seed=1)
    return loss, (logits, features, features), Tensor([0, 0, 1, 1] * 2, ms.int32)


@pytest.mark.parametrize("prepare", PREPARE, ids=["operators", "numba"])
def test_a_loss_is_computed_with_what_it_holds_now(prepare):
    loss, outputs, labels = stage_loss()
    prepare(loss)
    totals = [float(loss(outputs, labels)[0])]
    loss.weights = (1.0, 2.5)
    totals.append(float(loss(outputs, labels)[0]))
    loss.terms[1].loss.margin = 7.0
    totals.append(float(loss(outputs, labels)[0]))
    identity, triplet = (float(value) for value in loss(outputs, labels)[1:])
    assert totals[2] == pytest.approx(identity + 2.5 * triplet, rel=1e-5)
    assert len({round(total, 3) for total in totals}) == 3
    for margin in range(6):  # which no compiled graph has
        loss.terms[1].loss.margin = 10.0 + margin
        totals.append(float(loss(outputs, labels)[0]))
    assert np.diff(totals[3:]) == pytest.approx([2.5] * 5, abs=1e-3)


def test_a_term_of_a_loss_by_itself_has_no_gradient():
    loss, (logits, features, _), labels = stage_loss()
    backend_named("numba").accelerate(loss)

    def weighed(logits, features, weight):
        total, identity, _ = loss((logits, features, features), labels)
        return total + weight * identity

    with pytest.raises(InputError, match=r"StageLoss: .* give train\.backend=eager"):
        ms.grad(weighed, (0, 1))(logits, features, 3.0)
    gradients = ms.grad(weighed, (0, 1))(logits, features, 0.0)
    expected = ms.grad(lambda *outputs: stage_loss()[0]((*outputs, outputs[1]), labels)[0], (0, 1))(logits, features)
    for kernel, operators in zip(gradients, expected, strict=True):
        assert kernel.asnumpy() == pytest.approx(operators.asnumpy(), abs=1e-5)


def test_a_gradient_of_a_gradient_is_refused():
    def slope(x):
        return ms.grad(lambda x: cell(x).sum())(x).sum()

    cell = gelu()
    with pytest.raises(InputError, match=r"give train\.backend=eager"):
        ms.grad(slope)(values(2, 3))


@pytest.mark.parametrize(
    "optimizer", [lambda groups: AdamW(groups, (0.9, 0.99), 1e-8, 0.1), lambda groups: SGD(groups, 0.9, True, 0.1)]
)
def test_an_update_that_does_not_apply_changes_nothing(optimizer):
    weight = ms.Parameter(values(5), name="weight")
    cell = optimizer([ParameterGroup("full", 1.0, (weight,))])
    backend_named("numba").accelerate(nn.Cell(), None, cell)
    held = [p.asnumpy().copy() for p in (weight, *cell.state())]
    for applies in (False, True):
        cell(cell.parts, (values(5, seed=1),), Tensor(cell.scalars(1, [0.1])), Tensor(applies))
        same = all(np.array_equal(p.asnumpy(), before) for p, before in zip((weight, *cell.state()), held, strict=True))
        assert same is not applies


def test_nothing_is_written_to_a_view():
    whole = values(4, 6)
    assert np.array_equal(array(whole.T), whole.asnumpy().T)
    memory(whole)[0] = 1.0
    assert whole.asnumpy()[0].tolist() == [1.0] * 6
    with pytest.raises(ValueError, match=r"shape \(6, 4\).* is a view"):
        memory(whole.T)


@pytest.mark.parametrize("case", ["GELU", "LayerNorm", "Attention", "GeM", "Bottleneck", "stem"])
def test_not_a_number_stays_one(case):
    cell, (x, *others) = made(case, True)
    backend_named("numba").accelerate(cell)
    pixels = x.asnumpy().copy()
    pixels.reshape(-1)[1] = np.nan
    assert np.isnan(cell(Tensor(pixels), *others).asnumpy()).any()


def test_gelu_far_out_and_softmax_of_large_scores():
    far = np.array([-1e30, -1e3, -20.0, 0.0, 20.0, 1e3, 1e30], np.float32)
    assert gelu()(Tensor(far)).asnumpy().tolist() == [0.0, 0.0, 0.0, 0.0, 20.0, *far[5:]]
    qkv = np.zeros((1, 3, 3), np.float32)
    qkv[0] = [[1e4, 1.0, 1.0], [-1e4, -1.0, 2.0], [0.0, 0.5, 4.0]]
    attention = AttentionKernel.apply(Tensor(qkv), 1, 1).asnumpy().ravel()
    # Queries 1e4 and -1e4 choose the largest and the smallest key, and 0 weighs all alike.
    assert attention.tolist() == pytest.approx([1.0, 2.0, 7.0 / 3.0])


@pytest.mark.parametrize("case", ["LayerNorm", "Dense", "Bottleneck", "intra-modality learner"])
def test_sums_do_not_depend_on_the_number_of_threads(case, monkeypatch):
    found = []
    for threads in (1, 3):
        monkeypatch.setattr(base, "THREADS", threads)
        monkeypatch.setattr(base, "_WORTH", 0)
        base._tasks.cache_clear()
        cell, inputs = made(case, True)
        backend_named("numba").accelerate(cell)
        found.append(everything(cell, inputs))
    base._tasks.cache_clear()
    for one, three in zip(*found, strict=True):
        assert np.array_equal(one, three)


def test_threads_share_all_turns(monkeypatch):
    @base.threaded()
    def squares(start, stop, x, y):
        for i in range(start, stop):
            y[i] = x[i] * x[i]

    monkeypatch.setattr(base, "THREADS", 8)
    monkeypatch.setattr(base, "_WORTH", 0)
    for turns in (0, 1, 2, 100_001):
        x, y = np.arange(turns, dtype=np.float32), np.zeros(turns, np.float32)
        squares(turns, x, y)
        assert np.array_equal(y, x * x)


def test_an_error_in_a_thread_is_raised(monkeypatch):
    monkeypatch.setattr(base, "THREADS", 2)
    monkeypatch.setattr(base, "_WORTH", 0)

    @base.threaded()
    def failing(start, stop, x):
        if start > 0:
            raise ValueError("half of it")

    with pytest.raises(ValueError, match="half of it"):
        failing(2, np.zeros(2))


def test_weights_and_products_begin_at_a_cache_line():
    cells = [ResNet(width=4, stages=()), Attention(12, 3, 0.0, 0)]
    for weight in (weight for cell in cells for weight in cell.get_parameters()):
        astray = np.arange(weight.size + 1, dtype=np.float32)[1:].reshape(weight.shape)
        weight.set_data(Tensor.from_numpy(astray))
    for cell in cells:
        before = [weight.asnumpy().copy() for weight in cell.get_parameters()]
        backend_named("numba").accelerate(cell)
        for weight, values_before in zip(cell.get_parameters(), before, strict=True):
            assert weight.data_ptr() % 64 == 0, weight.name
            assert np.array_equal(weight.asnumpy(), values_before)
    assert {base.empty((count, 3)).data_ptr() % 64 for count in range(1, 40)} == {0}


def test_a_product_keeps_no_memory():
    a, b = np.ones((4, 8), np.float32), np.ones((8, 4), np.float32)
    for _ in range(6_000):
        base.matmul(a, b, transpose_a=True, transpose_b=True).asnumpy()
    before = psutil.Process().memory_info().rss
    for _ in range(10_000):
        base.matmul(a, b, transpose_a=True, transpose_b=True).asnumpy()
    grown = psutil.Process().memory_info().rss - before
    assert grown < 4e6  # by the operator's own call 14e6, most of it for its two flags


def test_a_view_is_read_where_it_lies():
    whole = values(4, 6)
    assert gelu()(whole[1:3]).asnumpy() == pytest.approx(gelu()(whole).asnumpy()[1:3], abs=0)
    assert gelu()(whole.T).asnumpy() == pytest.approx(gelu()(whole).asnumpy().T, abs=0)


def test_a_cell_of_kernels_can_be_differentiated_by_itself():
    value, gradient = ms.value_and_grad(nn.SequentialCell(gelu(), nn.Flatten()))(values(2, 3))
    assert value.shape == gradient.shape == (2, 3)
    assert ms.grad(gelu())(values(2, 3)).asnumpy() == pytest.approx(gradient.asnumpy(), abs=1e-6)
