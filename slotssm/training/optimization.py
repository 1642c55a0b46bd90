"""The optimiser of a task: learning rates per part, weight decay, schedule, and gradient clipping."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from slotssm.config import TrainConfig
from slotssm.errors import InputError
from slotssm.layers import decayed_parameters
from slotssm.tasks import Task


def build_optimizer(task: Task, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW over the parts that are not frozen, with weight decay on weight matrices only.

    Weight decay applies to the weights of linear maps, convolutions and recurrent cells. As in Mamba, it does not
    apply to biases, norms, learned initial slots and the dynamics of state space models.

    Raises:
        InputError: the configuration names a part that the task does not have, or freezes all parts.
    """
    parts = dict(task.named_children())
    for key, names in (("frozen_parts", config.frozen_parts), ("part_learning_rates", config.part_learning_rates)):
        for name in names:
            if name not in parts:
                raise InputError(f"train.{key} names {name}; the parts of this task are {', '.join(parts)}")
    decayed = {id(parameter) for parameter in decayed_parameters(task)}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for full_name, parameter in task.named_parameters():
        part = full_name.split(".", 1)[0]
        parameter.requires_grad_(part not in config.frozen_parts)
        if part in config.frozen_parts:
            continue
        rate = config.part_learning_rates.get(part, config.learning_rate)
        decay = config.weight_decay if id(parameter) in decayed else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    if not groups:
        raise InputError("train.frozen_parts freezes every part of the task; leave one to train")
    settings = [
        {"params": parameters, "weight_decay": decay, "lr": rate, "peak": rate}
        for (rate, decay), parameters in groups.items()
    ]
    # the fused kernel can skip a step on the device itself; see `Trainer`
    return torch.optim.AdamW(settings, lr=config.learning_rate, fused=True)


def learning_rate(config: TrainConfig, step: int) -> float:
    """Learning rate of a step, counted from 0: linear warm-up, then constant or cosine decay to a tenth."""
    return config.learning_rate * schedule(config, step)


def schedule(config: TrainConfig, step: int) -> float:
    """Learning rate of a step, counted from 0, as a fraction of the peak.

    After the end of the schedule, the rate keeps its final value.
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    last = config.schedule_steps or config.num_steps
    progress = min(1.0, (step - config.warmup_steps) / max(1, last - config.warmup_steps))
    return 0.55 + 0.45 * math.cos(math.pi * progress)


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scale the gradients in place so that their norm is at most `max_norm`, like torch's `clip_grad_norm_`.

    The squares are summed in float64 if the device supports it. In float32 they overflow at a norm of 2e19, which
    would stop the training of a recurrent model whose gradient explodes over a long sequence, although every gradient
    is finite and clipping is meant for that case.

    Returns:
        The norm before clipping, a scalar on the device; not finite only if a gradient is not.
    """
    parameters = list(parameters)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    dtype = torch.float32 if gradients[0].device.type == "mps" else torch.float64
    # of one tensor: hundreds of small ones cost as many calls
    norm = torch.linalg.vector_norm(torch.cat([gradient.flatten() for gradient in gradients]), dtype=dtype)
    torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return norm
