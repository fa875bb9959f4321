"""What a network is made of, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor, nn


@torch.no_grad()
def summarize(net: nn.Module, inputs: Any, scales: Mapping[nn.Parameter, float] = {}) -> str:
    """Layer, output shape and parameters of every layer that has no layers inside, and the totals.

    Args:
        scales: what the learning rate of each parameter is multiplied by; a column if it is not the same for all.
        inputs: a batch of any size. The network is in evaluation mode meanwhile, so that no statistics change.
    """
    rows: list[list[Any]] = []

    def rate_of(layer: nn.Module) -> str:
        found = sorted({scales.get(p, 1.0) for p in layer.parameters(recurse=False)})
        return ", ".join(f"x {scale:g}" if scale else "frozen" for scale in found)

    def note(name: str) -> Any:
        def hook(layer: nn.Module, _: Any, output: Any) -> None:
            first = output if isinstance(output, Tensor) else output[0]
            shape = " x ".join(["batch", *map(str, first.shape[1:])]) if isinstance(first, Tensor) else ""
            count = sum(p.numel() for p in layer.parameters(recurse=False))
            rows.append([name, type(layer).__name__, shape, f"{count:,}" if count else "", rate_of(layer)])

        return hook

    leaves = [(name, layer) for name, layer in net.named_modules() if not list(layer.children())]
    handles = [layer.register_forward_hook(note(name)) for name, layer in leaves]
    was_training = net.training
    net.eval()(inputs)
    net.train(was_training)
    for handle in handles:
        handle.remove()
    called = {row[0] for row in rows}
    for name, layer in leaves:  # one that only the loss uses, such as a CRF
        if name not in called and (count := sum(p.numel() for p in layer.parameters())):
            rows.append([name, type(layer).__name__, "", f"{count:,}", rate_of(layer)])
    total = sum(p.numel() for p in net.parameters())
    trainable = sum(p.numel() for p in net.parameters() if p.requires_grad)
    headers = ["layer", "type", "output shape", "parameters"]
    if len({*scales.values()}) > 1:
        headers.append("learning rate")
    table = tabulate(
        [row[: len(headers)] for row in rows],
        headers=headers,
        tablefmt="simple",
        colalign=("left", "left", "left", "right", "left")[: len(headers)],
        disable_numparse=True,
    )
    return f"{table}\n\n{total:,} parameters, {trainable:,} of them trained"
