"""params.json -> torch's optimizers and learning rate schedulers."""

from __future__ import annotations

import inspect
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

from engine.params import TrainingParams, did_you_mean
from engine.ranking import Goal
from utils import UserError, logger

OPTIMIZERS: dict[str, Any] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "adamax": torch.optim.Adamax,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
    "adadelta": torch.optim.Adadelta,
}


def make_optimizer(net: nn.Module, params: TrainingParams) -> torch.optim.Optimizer:
    """The optimizer that `params` names, with weight decay on matrices and kernels only.

    Raises:
        UserError: learning_rate_scale names no parameter.
    """
    scales = scales_of(net, params)
    groups = [
        {"params": weights, "lr": params.learning_rate * scale, "scale": scale, "weight_decay": decay}
        for scale in sorted({*scales.values()} - {0.0}, key=lambda scale: (scale != 1, scale))
        for is_matrix, decay in ((True, params.weight_decay), (False, 0.0))
        if (weights := [p for p, own in scales.items() if own == scale and (p.ndim > 1) == is_matrix])
    ]
    if not groups:
        raise UserError("learning_rate_scale: nothing is left to train.")
    options: dict[str, Any] = {}
    if params.optimizer == "sgd":
        options = {"momentum": params.momentum, "nesterov": params.momentum > 0}
    elif params.optimizer == "rmsprop":
        options = {"momentum": params.momentum}
    if params.fused_optimizer and params.optimizer in ("sgd", "adam", "adamw"):
        options["fused"] = True
    make = without_compiler(OPTIMIZERS[params.optimizer])
    return make(groups, lr=params.learning_rate, **options)


def scales_of(net: nn.Module, params: TrainingParams) -> dict[nn.Parameter, float]:
    """What the learning rate of each parameter is multiplied by: what learning_rate_scale says of the longest name that
    its own begins with. A parameter that is not to be trained has 0, and no gradient. Raises UserError."""
    names = [name for name, _ in net.named_parameters()]
    for prefix in params.learning_rate_scale:
        if not any(begins_with(name, prefix) for name in names):
            parts = {".".join(name.split(".")[:count]) for name in names for count in range(1, name.count(".") + 2)}
            shown = ", ".join(dict.fromkeys(name.split(".")[0] for name in names))
            raise UserError(
                f"learning_rate_scale: no parameter begins with {prefix}.{did_you_mean(prefix, sorted(parts))}"
                f" There are {shown}."
            )
    scales = {}
    for name, parameter in net.named_parameters():
        found = [prefix for prefix in params.learning_rate_scale if begins_with(name, prefix)]
        scale = params.learning_rate_scale[max(found, key=len)] if found else 1.0
        parameter.requires_grad_(parameter.requires_grad and scale > 0)
        scales[parameter] = scale if parameter.requires_grad else 0.0
    return scales


def begins_with(name: str, prefix: str) -> bool:
    """Whether a parameter is, or is in, the part of a network that `prefix` names."""
    return name == prefix or name.startswith(prefix + ".")


def freeze(net: nn.Module, optimizer: torch.optim.Optimizer, epoch: int) -> None:
    """Let what `net.frozen(epoch)` names, if the network has that method, have no gradient in this epoch."""
    if not hasattr(net, "frozen"):
        return
    frozen: list[str] = net.frozen(epoch)  # type: ignore[operator]
    trained = {parameter for group in optimizer.param_groups for parameter in group["params"]}
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(parameter in trained and not any(begins_with(name, prefix) for prefix in frozen))
    if frozen:
        logger.info("Frozen in epoch %d: %s", epoch + 1, ", ".join(frozen))


def without_compiler(optimizer: Any) -> Any:
    """The same optimizer without torch.compile's machinery, which nothing here uses.

    An optimizer of torch imports that machinery in order to exclude itself from compilation. The import takes 1.2 to
    1.7 s (torch 2.11 to 2.15), more than all the rest of a start up to the first step. So its functions are marked as
    excluded already, and `step` is taken without the wrapper that would import. If a later torch names these things
    differently, the import is back and nothing else changes.
    """
    for function in vars(torch.optim.Optimizer).values():
        if wrapped := getattr(function, "__wrapped__", None):
            vars(wrapped).setdefault("__dynamo_disable", wrapped)
    return type(optimizer.__name__, (optimizer,), {"step": torch.no_grad()(inspect.unwrap(optimizer.step))})


def clip_gradients(optimizer: torch.optim.Optimizer, max_norm: float) -> Tensor:
    """Scale all gradients down to a total norm of `max_norm`, if that is above 0. Returns the norm before."""
    weights = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    # as nn.utils.get_total_norm, which first sorts them by device and type: that takes 2 % of a small network's step
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm([p.grad for p in weights])))
    if max_norm:
        nn.utils.clip_grads_with_norm_(weights, max_norm, norm)
    return norm


def current_rate(optimizer: torch.optim.Optimizer) -> float:
    """The learning rate of the next step, before learning_rate_scale."""
    group = optimizer.param_groups[0]
    return float(group["lr"]) / group.get("scale", 1.0)


class Schedule:
    """The learning rate over a run: torch's scheduler of that name, multiplied by a linear warm-up.

    `step` is called after every optimizer step, so that the curve is smooth in short runs too.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, params: TrainingParams, steps_per_epoch: int, goal: Goal = "minimize"
    ):
        total_steps = params.num_epochs * steps_per_epoch
        warmup_epochs = min(params.warmup_epochs, params.num_epochs / 2)
        warmup_steps = round(warmup_epochs * steps_per_epoch)
        if warmup_epochs < params.warmup_epochs:
            logger.info(
                "The warm-up is shortened from %g to %g epochs, half of the run.", params.warmup_epochs, warmup_epochs
            )
        self.optimizer = optimizer
        self.learning_rate = params.learning_rate  # of the last step
        self.per_step: list[Any] = []
        self.plateau: lr_scheduler.ReduceLROnPlateau | None = None
        if params.scheduler == "onecycle":  # it has a warm-up of its own
            self.per_step = [
                lr_scheduler.OneCycleLR(
                    optimizer,
                    max_lr=[group["lr"] for group in optimizer.param_groups],
                    total_steps=total_steps + 1,  # torch also counts the rate before the first step
                    pct_start=min(1.0, max(warmup_steps or 0.3 * total_steps, 2) / (total_steps + 1)),
                    cycle_momentum=False,
                )
            ]
            return
        if warmup_steps > 1:
            start = 1 / warmup_steps
            self.per_step.append(lr_scheduler.LinearLR(optimizer, start, total_iters=warmup_steps - 1))
        if params.scheduler == "step":
            step_size = params.step_epochs * steps_per_epoch
            self.per_step.append(lr_scheduler.StepLR(optimizer, step_size, params.gamma))
        elif params.scheduler == "cosine":
            self.per_step.append(lr_scheduler.CosineAnnealingLR(optimizer, total_steps))
        elif params.scheduler == "plateau":
            mode: Literal["min", "max"] = "min" if goal == "minimize" else "max"
            self.plateau = lr_scheduler.ReduceLROnPlateau(optimizer, mode, params.gamma, params.plateau_patience)

    def step(self) -> None:
        self.learning_rate = current_rate(self.optimizer)
        for scheduler in self.per_step:
            scheduler.step()

    def end_epoch(self, monitored: float) -> None:
        if self.plateau:
            self.plateau.step(monitored)

    def _all(self) -> list[Any]:
        return [*self.per_step, *([self.plateau] if self.plateau else [])]

    def state_dict(self) -> dict[str, Any]:
        return {
            "learning_rate": self.learning_rate,
            "schedulers": [scheduler.state_dict() for scheduler in self._all()],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.learning_rate = state["learning_rate"]
        for scheduler, its_state in zip(self._all(), state["schedulers"], strict=True):
            scheduler.load_state_dict(its_state)
