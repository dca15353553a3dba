"""Convert checkpoints between PyTorch and MindSpore, in both directions: weights, and the state of training.

A run's .safetensors, of ms_vireid/train.py or torch_ref/train.py, says whose names it has and becomes one of the other
framework's. MindSpore's .ckpt has MindSpore's names; PyTorch's .pth (.pt) has PyTorch's, and holds weights only. Files
of the authors' PMT, of the AGW baseline, of timm's ViT-B/16 and of torchvision's ResNet-50 are recognised by their
names; the last two become files for model.pretrained.
"""

from collections.abc import Mapping
from pathlib import Path

import mindspore as ms
import numpy as np
import torch
from mindspore import nn, ops

from ms_vireid.command.running import Parser, run
from ms_vireid.devices import runtime
from ms_vireid.files.weights import FRAMEWORKS
from parity.conversion import check_target, prepare
from parity.files import WRITTEN, write
from parity.mapping import COUNTER, STEP, Twin, differences, twins, with_step


def to_mindspore(state_dict: Mapping[str, torch.Tensor], cell: nn.Cell) -> None:
    """Set every parameter and buffer of `cell` from a PyTorch state dict, bit for bit; nothing is set unless all fits.

    Args:
        state_dict: tensors by PyTorch's names; `num_batches_tracked` may be there and is left out: MindSpore has none.

    Raises:
        ValueError: keys missing, extra or misshapen, all listed; or values of another type than the parameter's.
    """
    held = {name: value for name, value in state_dict.items() if not name.endswith(COUNTER)}
    pairs = twins(cell)
    shapes = {name: tuple(value.shape) for name, value in held.items()}
    problems = differences(shapes, {twin.torch_name: twin.torch_shape for twin in pairs}, "network")
    arrays = {name: value.detach().cpu().numpy() for name, value in held.items()} if not problems else {}
    problems += [
        f"{twin.torch_name} is {arrays[twin.torch_name].dtype}, the network's is {_dtype(twin.parameter)}"
        for twin in pairs
        if twin.torch_name in arrays and arrays[twin.torch_name].dtype != _dtype(twin.parameter)
    ]
    if problems:
        raise ValueError(f"the state dict does not fit the network: {', '.join(problems)}")
    for twin in pairs:
        _set(twin.parameter, np.ascontiguousarray(twin.to_mindspore(arrays[twin.torch_name])))


def _set(parameter: ms.Parameter, value: np.ndarray) -> None:
    """In place: a graph that has run goes on with the old values after `set_data` (MindSpore 2.10, CPU)."""
    ops.assign(parameter, ms.Tensor(value))


def to_torch(cell: nn.Cell, module: torch.nn.Module) -> None:
    """Set every parameter and buffer of `module` from a cell, bit for bit; nothing is set unless all fits.

    `num_batches_tracked` is left unchanged: MindSpore does not count batches.

    Raises:
        ValueError: keys missing, extra or misshapen, all listed; or values of another type than the parameter's.
    """
    targets = {name: value for name, value in module.state_dict().items() if not name.endswith(COUNTER)}
    pairs = twins(cell)
    shapes = {twin.torch_name: twin.torch_shape for twin in pairs}
    problems = differences(shapes, {name: tuple(value.shape) for name, value in targets.items()}, "module")
    values = {twin.torch_name: torch.from_numpy(twin.to_torch(twin.parameter.asnumpy()).copy()) for twin in pairs}
    problems += [
        f"{name} is {value.dtype}, the module's is {targets[name].dtype}"
        for name, value in values.items()
        if name in targets and value.dtype != targets[name].dtype
    ]
    if problems:
        raise ValueError(f"the cell does not fit the module: {', '.join(problems)}")
    with torch.no_grad():
        for name, value in values.items():
            targets[name].copy_(value)


def optimizer_to_torch(ms_optimizer: nn.Cell, torch_optimizer: torch.optim.Optimizer, cell: nn.Cell, step: int) -> None:
    """Give `torch_optimizer` the state of `ms_optimizer`, bit for bit; nothing is set unless all fits.

    MindSpore's fused AdamWeightDecay takes 1 - beta in float32, so its second moment is the constant factor
    1 - 1.29e-5 smaller than PyTorch's (the update itself is corrected: `ms_vireid.engine.optimizer.AdamW.scalars`).
    It is carried as it is: a round trip stays exact, and the first steps after a change of framework differ by 6e-6
    of their length, far below every tolerance.

    Args:
        ms_optimizer: its `state()` are parameters called KEY.NAME, with KEY as torch.optim calls the state and NAME
            the weight's.
        torch_optimizer: made with named parameters, as torch_ref's are; its learning rates are left alone.
        cell: the network that `ms_optimizer` trains.
        step: steps done, which MindSpore's optimizer does not count.

    Raises:
        ValueError: states missing, extra or misshapen, all listed.
    """
    weights = _named_parameters(torch_optimizer)
    keys, trained, problems = _trained(ms_optimizer, weights, cell)
    if problems:
        raise ValueError(f"the optimizer's state does not fit: {', '.join(problems)}")
    states = {parameter.name: parameter.asnumpy() for parameter in ms_optimizer.state()}
    for twin in trained:
        values = {key: twin.to_torch(states[f"{key}.{twin.parameter.name}"]).copy() for key in keys}
        state = {key: torch.from_numpy(value) for key, value in values.items()}
        torch_optimizer.state[weights[twin.torch_name]] = with_step(state, step)


def optimizer_to_mindspore(torch_optimizer: torch.optim.Optimizer, ms_optimizer: nn.Cell, cell: nn.Cell) -> int | None:
    """Give `ms_optimizer` the state of `torch_optimizer`, bit for bit; nothing is set unless all fits.

    In PyTorch an optimizer has no state before its first step: all of MindSpore's is then 0.

    Args: as of `optimizer_to_torch`.

    Returns:
        The number of steps done, where PyTorch counts them (0 before the first); None for SGD.

    Raises:
        ValueError: states missing, extra or misshapen, or weights with different numbers of steps, all listed.
    """
    weights = _named_parameters(torch_optimizer)
    targets = {parameter.name: parameter for parameter in ms_optimizer.state()}
    states = {name: dict(torch_optimizer.state.get(weight, {})) for name, weight in weights.items()}
    if not any(states.values()):
        for target in targets.values():
            _set(target, np.zeros(target.shape, _dtype(target)))
        return 0
    steps = {name: int(state.pop(STEP)) for name, state in states.items() if STEP in state}
    values = {f"{key}.{name}": value for name, state in states.items() for key, value in state.items()}
    keys, trained, problems = _trained(ms_optimizer, weights, cell)
    shapes = {name: getattr(value, "shape", ()) for name, value in values.items()}
    wanted = {f"{key}.{twin.torch_name}": twin.torch_shape for key in keys for twin in trained}
    problems += differences(shapes, wanted, "optimizer")
    if len(set(steps.values())) > 1:
        problems += [f"{name} counts {count} steps" for name, count in steps.items()]
    if problems:
        raise ValueError(f"the optimizer's state does not fit: {', '.join(problems)}")
    for twin in trained:
        for key in keys:
            value = values[f"{key}.{twin.torch_name}"].detach().cpu().numpy()
            _set(targets[f"{key}.{twin.parameter.name}"], np.ascontiguousarray(twin.to_mindspore(value)))
    return next(iter(steps.values()), None)


def _trained(
    ms_optimizer: nn.Cell, weights: Mapping[str, torch.Tensor], cell: nn.Cell
) -> tuple[list[str], list[Twin], list[str]]:
    """The keys of an optimizer's states, the weights that the network trains, and how the optimizers' own differ from
    these, in words. `weights`: the torch optimizer's, by name."""
    states = {parameter.name: parameter.shape for parameter in ms_optimizer.state()}
    keys = sorted({name.partition(".")[0] for name in states})
    trained = [twin for twin in twins(cell) if twin.parameter.requires_grad]
    problems = differences(
        states, {f"{key}.{twin.parameter.name}": twin.shape for key in keys for twin in trained}, "network"
    )
    problems += differences(
        {name: weight.shape for name, weight in weights.items()},
        {twin.torch_name: twin.torch_shape for twin in trained},
        "network",
    )
    return keys, trained, problems


def _named_parameters(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The weights that a torch optimizer trains, by name, in its order."""
    if any("param_names" not in group for group in optimizer.param_groups):
        raise ValueError("the torch optimizer does not know its parameters' names: make it with named_parameters()")
    return {
        name: weight
        for group in optimizer.param_groups
        for name, weight in zip(group["param_names"], group["params"], strict=True)
    }


def _dtype(parameter: ms.Parameter) -> np.dtype:
    return np.dtype(ms.dtype_to_nptype(parameter.dtype))


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("source", type=Path, metavar="SRC", help="file to read: .safetensors, .ckpt, .pth, .pt or .t")
    parser.add_argument("target", type=Path, metavar="DST", help=f"file to write: {', '.join(WRITTEN)}")
    parser.add_argument(
        "--to",
        choices=FRAMEWORKS,
        help="whose names a .safetensors gets, MindSpore's or PyTorch's (default: those that SRC does not have)",
    )
    parser.add_argument(
        "--config", type=Path, metavar="C", help="recipe of a file that carries none; without it, of its layout"
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would become of every key, write nothing")
    parser.add_argument("--overwrite", action="store_true", help="replace DST if it is there")
    parser.add_argument(
        "overrides", nargs="*", metavar="key.sub=value", help="configuration values, for example model.depth=6"
    )
    arguments = parser.parse_intermixed_args()

    target = arguments.target
    check_target(target, arguments.source, arguments.to, arguments.overwrite)
    runtime.set_up("CPU")
    conversion = prepare(arguments.source, target.suffix, arguments.to, arguments.config, arguments.overrides)
    if arguments.dry_run:
        print(conversion.table())
    else:
        write(target, conversion.tensors, conversion.meta, conversion.framework)
    print(conversion.count_line())
    print(f"dry run: {target} was not written" if arguments.dry_run else f"wrote {target}")


if __name__ == "__main__":
    run(main)
