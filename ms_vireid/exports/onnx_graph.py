"""ONNX graphs, written layer by layer from a model's cells. Needs `pip install -e '.[export]'`.

MindSpore 2.10's own exporters fail: `mindspore.export` knows neither MaxPool3DWithArgmax (the ResNet's pooling) nor
Erf, and `mindspore.onnx.export` breaks on BatchNorm and BroadcastTo.
"""

import math
from functools import singledispatch
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from mindspore import Parameter, nn
from onnx import helper, numpy_helper
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException

from ms_vireid.command.errors import InputError
from ms_vireid.exports.verification import INPUT, OUTPUT, Compute, ExportRequest
from ms_vireid.models import ResNet, VisionTransformer
from ms_vireid.models.agw import NonLocal
from ms_vireid.models.layers import GEM_MIN, GeM
from ms_vireid.models.resnet import Bottleneck
from ms_vireid.models.vit import Attention, Block, Mlp, PatchEmbed

OPSET = 17  # the first with LayerNormalization: ONNX Runtime 1.13 and later, TensorRT 8.6 and later
IR_VERSION = 8

Value = str | Parameter | np.ndarray | float  # an output's name, a weight, an integer array (shapes), a float32 number


class OnnxGraph:
    """Collects nodes and weights; a value is passed on by its name."""

    def __init__(self):
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, onnx.TensorProto] = {}

    def add(self, operator: str, *inputs: Value, **attributes) -> str:
        """Add a node; return its output's name."""
        output = f"{operator}_{len(self.nodes)}"
        names = [self._name(value) for value in inputs]
        self.nodes.append(helper.make_node(operator, names, [output], name=output, **attributes))
        return output

    def weight(self, name: str, array: np.ndarray) -> str:
        """Add a weight once; return its name."""
        self.weights.setdefault(name, numpy_helper.from_array(array, name))
        return name

    def reshape(self, x: Value, *shape: int) -> str:
        """Reshape to `shape`, in which 0 keeps a dimension."""
        return self.add("Reshape", x, np.array(shape))

    def flatten_places(self, x: Value) -> str:
        """[N, C, rows, columns] -> [N, C, L]. A -1 in `reshape` could not be inferred of an empty batch."""
        places = self.add("ReduceProd", self.add("Shape", x, start=2), keepdims=1)
        return self.add("Reshape", x, self.add("Concat", self.add("Shape", x, end=2), places, axis=0))

    def _name(self, value: Value) -> str:
        if isinstance(value, str):
            return value
        if isinstance(value, Parameter):
            return self.weight(value.name, value.asnumpy())
        array = np.float32(value) if isinstance(value, float) else np.asarray(value, np.int64)
        return self.weight(f"constant_{array.dtype}_{array.tolist()}".replace(" ", ""), np.asarray(array))


@singledispatch
def emit(cell: nn.Cell, graph: OnnxGraph, x: str) -> str:
    """Add the nodes of `cell`, applied to the value named x; return the output's name."""
    raise InputError(
        f"{type(cell).__name__}: ms_vireid/exports/onnx_graph.py does not know how to write this layer in ONNX; "
        f"register it there, or export with --format mindir"
    )


def chain(graph: OnnxGraph, x: str, *cells: nn.Cell) -> str:
    for cell in cells:
        x = emit(cell, graph, x)
    return x


@emit.register
def _(cell: nn.Conv2d, graph: OnnxGraph, x: str) -> str:
    bias = (cell.bias,) if cell.has_bias else ()
    pads = 2 * _pair(cell.padding)
    return graph.add("Conv", x, cell.weight, *bias, strides=_pair(cell.stride), pads=pads, group=cell.group)


@emit.register
def _(cell: nn.MaxPool2d, graph: OnnxGraph, x: str) -> str:
    pads = 2 * list(cell.padding[1:]) if cell.use_pad else [0, 0, 0, 0]  # of three dimensions, the first of size 1
    return graph.add("MaxPool", x, kernel_shape=_pair(cell.kernel_size), strides=_pair(cell.stride), pads=pads)


@emit.register(nn.BatchNorm1d)
@emit.register(nn.BatchNorm2d)
def _(cell: nn.BatchNorm1d | nn.BatchNorm2d, graph: OnnxGraph, x: str) -> str:
    weights = cell.gamma, cell.beta, cell.moving_mean, cell.moving_variance
    return graph.add("BatchNormalization", x, *weights, epsilon=cell.eps)


@emit.register
def _(cell: nn.Dense, graph: OnnxGraph, x: str) -> str:
    x = graph.add("MatMul", x, graph.weight(f"{cell.weight.name}.transposed", cell.weight.asnumpy().T.copy()))
    return graph.add("Add", x, cell.bias) if cell.has_bias else x


@emit.register
def _(cell: nn.LayerNorm, graph: OnnxGraph, x: str) -> str:
    return graph.add("LayerNormalization", x, cell.gamma, cell.beta, axis=-1, epsilon=cell.epsilon)


@emit.register
def _(cell: nn.SequentialCell, graph: OnnxGraph, x: str) -> str:
    return chain(graph, x, *cell)


@emit.register
def _(cell: nn.ReLU, graph: OnnxGraph, x: str) -> str:
    return graph.add("Relu", x)


@emit.register
def _(cell: nn.GELU, graph: OnnxGraph, x: str) -> str:
    distribution = graph.add("Add", graph.add("Erf", graph.add("Mul", x, math.sqrt(0.5))), 1.0)
    return graph.add("Mul", graph.add("Mul", x, distribution), 0.5)


@emit.register
def _(cell: GeM, graph: OnnxGraph, x: str) -> str:
    power = cell.power
    if cell.learned:
        x, power = graph.add("Max", x, GEM_MIN), float(cell.trained_power().asnumpy()[0])
    mean = graph.add("ReduceMean", graph.add("Pow", x, power), axes=[2, 3], keepdims=0)
    return graph.add("Pow", graph.add("Add", mean, cell.eps), 1.0 / power)


@emit.register
def _(cell: PatchEmbed, graph: OnnxGraph, x: str) -> str:
    """[N, 3, H, W] -> [N, L, D]."""
    x = emit(cell.proj, graph, x)  # [N, D, rows, columns]
    return graph.add("Transpose", graph.flatten_places(x), perm=[0, 2, 1])


@emit.register
def _(cell: Attention, graph: OnnxGraph, x: str) -> str:
    qkv = graph.reshape(emit(cell.qkv, graph, x), 0, 0, 3, cell.num_heads, cell.head_dim)
    qkv = graph.add("Transpose", qkv, perm=[2, 0, 3, 1, 4])  # [3, N, heads, T, head_dim]
    query, key, value = (graph.add("Gather", qkv, np.array(i), axis=0) for i in range(3))
    query = graph.add("Mul", query, cell.head_dim**-0.5)
    scores = graph.add("MatMul", query, graph.add("Transpose", key, perm=[0, 1, 3, 2]))
    x = graph.add("MatMul", graph.add("Softmax", scores, axis=-1), value)  # [N, heads, T, head_dim]
    x = graph.reshape(graph.add("Transpose", x, perm=[0, 2, 1, 3]), 0, 0, cell.num_heads * cell.head_dim)
    return emit(cell.proj, graph, x)


@emit.register
def _(cell: Mlp, graph: OnnxGraph, x: str) -> str:
    return chain(graph, x, cell.fc1, cell.act, cell.fc2)


@emit.register
def _(cell: Block, graph: OnnxGraph, x: str) -> str:
    x = graph.add("Add", x, chain(graph, x, cell.norm1, cell.attn))
    return graph.add("Add", x, chain(graph, x, cell.norm2, cell.mlp))


@emit.register
def _(cell: VisionTransformer, graph: OnnxGraph, x: str) -> str:
    x = emit(cell.patch_embed, graph, x)  # [N, L, D]
    shape = graph.add("Concat", graph.add("Shape", x, end=1), np.array([1, cell.embed_dim]), axis=0)
    x = graph.add("Concat", graph.add("Expand", cell.cls_token, shape), x, axis=1)  # [N, T, D]
    x = chain(graph, graph.add("Add", x, cell.pos_embed), *cell.blocks)
    return graph.add("Gather", emit(cell.norm, graph, x), np.array(0), axis=1)  # [N, D]


@emit.register
def _(cell: Bottleneck, graph: OnnxGraph, x: str) -> str:
    shortcut = x if cell.downsample is None else emit(cell.downsample, graph, x)
    x = graph.add("Relu", chain(graph, x, cell.conv1, cell.bn1))
    x = graph.add("Relu", chain(graph, x, cell.conv2, cell.bn2))
    return graph.add("Relu", graph.add("Add", chain(graph, x, cell.conv3, cell.bn3), shortcut))


@emit.register
def _(cell: ResNet, graph: OnnxGraph, x: str) -> str:
    if cell.has_stem:
        x = graph.add("Relu", chain(graph, x, cell.conv1, cell.bn1))
        x = emit(cell.maxpool, graph, x)
    return chain(graph, x, *cell.blocks)


@emit.register
def _(cell: NonLocal, graph: OnnxGraph, x: str) -> str:
    maps = [emit(layer, graph, x) for layer in (cell.g, cell.theta, cell.phi)]  # [N, width, rows, columns] each
    g, theta, phi = map(graph.flatten_places, maps)  # [N, width, L] each
    positions = graph.add("Cast", graph.add("Shape", phi, start=2), to=onnx.TensorProto.FLOAT)  # [L]
    context = graph.add("Div", graph.add("MatMul", g, graph.add("Transpose", phi, perm=[0, 2, 1])), positions)
    y = graph.add("Reshape", graph.add("MatMul", context, theta), graph.add("Shape", maps[0]))
    return graph.add("Add", emit(cell.W, graph, y), x)


def write(request: ExportRequest, path: Path) -> None:
    """Write the checked graph, with `info` as metadata_props. Raises InputError for an unknown layer."""
    graph, model = OnnxGraph(), request.trained.model
    features = chain(graph, INPUT, *model.path(request.modality))  # [N, C]
    length = graph.add("Max", graph.add("ReduceL2", features, axes=[1], keepdims=1), 1e-12)
    normalised = graph.add("Div", features, length)
    graph.nodes.append(helper.make_node("Identity", [normalised], [OUTPUT], name=OUTPUT))

    batch, *picture = request.input_shape
    float32 = onnx.TensorProto.FLOAT
    values = [
        helper.make_tensor_value_info(INPUT, float32, [batch or "batch", *picture]),
        helper.make_tensor_value_info(OUTPUT, float32, [batch or "batch", model.bottleneck.num_features]),
    ]
    onnx_graph = helper.make_graph(graph.nodes, "ms_vireid", values[:1], values[1:], list(graph.weights.values()))
    opset = [helper.make_opsetid("", OPSET)]
    written = helper.make_model(onnx_graph, opset_imports=opset, ir_version=IR_VERSION)
    helper.set_model_props(written, request.info)
    onnx.checker.check_model(written, full_check=True)
    onnx.save(written, path)


def load(path: Path) -> Compute:
    """Load the graph in ONNX Runtime, on the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # it also logs the errors that it raises
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def compute(images: np.ndarray) -> np.ndarray:
        try:
            return session.run([OUTPUT], {INPUT: images})[0]
        except (Fail, InvalidArgument, RuntimeException) as error:
            raise ValueError(f"ONNX Runtime fails on a batch of {len(images)}: {error}") from None

    return compute


def _pair(size: int | tuple[int, ...]) -> list[int]:
    """[rows, columns] of a cell's size: one number for both, two, or four with two leading ones."""
    return [size, size] if isinstance(size, int) else list(size[-2:])
