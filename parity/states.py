"""Copy weights and optimiser state between the two frameworks. Imports mindspore: import it after
`runtime.set_up`."""

from collections.abc import Mapping

import mindspore as ms
import torch
from mindspore import nn

from ms_vireid.checkpoints.weights import COUNTER
from parity.mapping import differences, twins, values

STEP = "step"  # torch.optim's own count of steps, which Adam's bias correction needs and SGD does not keep
Tensors = Mapping[str, torch.Tensor]  # by name


def to_mindspore(state_dict: Tensors, cell: nn.Cell) -> None:
    """Set every parameter and buffer of `cell` from a PyTorch state dict, bit for bit, without `num_batches_tracked`,
    which MindSpore lacks. Unless all fits, nothing is set, and ValueError lists keys that are missing, extra, misshapen
    or of another type."""
    held = _without_counters(state_dict)
    _require_fitting(held, _as_tensors(cell), "the state dict", "network")
    for twin in twins(cell):
        _set(twin.parameter, held[twin.torch_name])


def _set(parameter: ms.Parameter, value: torch.Tensor) -> None:
    """In place: a graph that has run goes on with the old values after `set_data` (MindSpore 2.10, CPU)."""
    ms.ops.assign(parameter, ms.Tensor(value.detach().cpu().contiguous().numpy()))


def to_torch(cell: nn.Cell, module: torch.nn.Module) -> None:
    """Set every parameter and buffer of `module` but `num_batches_tracked` from a cell, as `to_mindspore` does."""
    targets, held = _without_counters(module.state_dict()), _as_tensors(cell)
    _require_fitting(held, targets, "the cell", "module")
    with torch.no_grad():
        for name, value in held.items():
            targets[name].copy_(value)


def _as_tensors(cell: nn.Cell) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in values(cell).items()}


def _without_counters(state_dict: Tensors) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state_dict.items() if not name.endswith(COUNTER)}


def _require_fitting(held: Tensors, wanted: Tensors, what: str, owner: str) -> None:
    problems = differences(held, wanted, owner)
    problems += [
        f"{name} is {value.dtype}, the {owner}'s is {wanted[name].dtype}"
        for name, value in held.items()
        if name in wanted and value.dtype != wanted[name].dtype
    ]
    _require_none(problems, f"{what} does not fit the {owner}")


def optimizer_to_torch(ms_optimizer: nn.Cell, torch_optimizer: torch.optim.Optimizer, cell: nn.Cell, step: int) -> None:
    """Give `torch_optimizer` the state of `ms_optimizer`, bit for bit. Unless all fits, nothing is set, and ValueError
    lists states that are missing, extra or misshapen.

    MindSpore's fused AdamWeightDecay takes 1 - beta in float32, so its second moment is the constant factor
    1 - 1.29e-5 smaller than PyTorch's (the update itself is corrected: `ms_vireid.optimizers.adamw.AdamW.scalars`).
    It is carried as it is: a round trip stays exact, and the first steps after a change of framework differ by 6e-6
    of their length.

    torch_optimizer: made with named parameters, as torch_ref's are; its learning rates are left alone. cell: the
    network that `ms_optimizer` trains. step: steps done, which MindSpore's optimizer does not count.
    """
    targets = _states(ms_optimizer, torch_optimizer, cell)
    keys = sorted({name.partition(".")[0] for name in targets})
    for name, weight in _named_parameters(torch_optimizer).items():
        state = {key: torch.from_numpy(targets[f"{key}.{name}"].asnumpy().copy()) for key in keys}
        counted = {STEP: torch.tensor(float(step))} if "exp_avg" in keys else {}
        torch_optimizer.state[weight] = counted | state


def optimizer_to_mindspore(torch_optimizer: torch.optim.Optimizer, ms_optimizer: nn.Cell, cell: nn.Cell) -> int | None:
    """Give `ms_optimizer` the state of `torch_optimizer`, as `optimizer_to_torch` does, or zeros before its first step.
    Returns the number of steps done, where PyTorch counts them; None for SGD. Raises ValueError also for weights with
    different numbers of steps."""
    targets = _states(ms_optimizer, torch_optimizer, cell)
    weights = _named_parameters(torch_optimizer)
    states = {name: dict(torch_optimizer.state.get(weight, {})) for name, weight in weights.items()}
    if not any(states.values()):
        for target in targets.values():
            _set(target, torch.zeros(target.shape))
        return 0
    steps = {name: int(state.pop(STEP)) for name, state in states.items() if STEP in state}
    held = {f"{key}.{name}": value for name, state in states.items() for key, value in state.items()}
    problems = differences(held, targets, "optimizer")
    if len(set(steps.values())) > 1:
        problems += [f"{name} counts {count} steps" for name, count in steps.items()]
    _require_none(problems, "the optimizer's state does not fit")
    for name, target in targets.items():
        _set(target, held[name])
    return next(iter(steps.values()), None)


def _states(ms_optimizer: nn.Cell, torch_optimizer: torch.optim.Optimizer, cell: nn.Cell) -> dict[str, ms.Parameter]:
    """MindSpore's states by PyTorch's names, KEY.NAME; both optimizers must train what the network does."""
    held = {parameter.name: parameter for parameter in ms_optimizer.state()}
    keys = sorted({name.partition(".")[0] for name in held})
    trained = [twin for twin in twins(cell) if twin.parameter.requires_grad]
    wanted = {f"{key}.{twin.parameter.name}": (f"{key}.{twin.torch_name}", twin) for key in keys for twin in trained}
    problems = differences(held, {own: twin.parameter for own, (_, twin) in wanted.items()}, "network")
    weights = {twin.torch_name: twin.parameter for twin in trained}
    problems += differences(_named_parameters(torch_optimizer), weights, "network")
    _require_none(problems, "the optimizer's state does not fit")
    return {name: held[own] for own, (name, _) in wanted.items()}


def _named_parameters(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The weights that a torch optimizer trains, by name, in its order."""
    if any("param_names" not in group for group in optimizer.param_groups):
        raise ValueError("the torch optimizer does not know its parameters' names: make it with named_parameters()")
    return {
        name: weight
        for group in optimizer.param_groups
        for name, weight in zip(group["param_names"], group["params"], strict=True)
    }


def _require_none(problems: list[str], refusal: str) -> None:
    if problems:
        raise ValueError(f"{refusal}: {', '.join(problems)}")
