"""What a network is made of, as a table."""

from __future__ import annotations

from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor, nn


@torch.no_grad()
def summarize(net: nn.Module, inputs: Any) -> str:
    """Layer, output shape and parameters of every layer that has no layers inside, and the totals.

    Args:
        inputs: a batch of any size. The network is in evaluation mode meanwhile, so that no statistics change.
    """
    rows: list[list[Any]] = []

    def note(name: str) -> Any:
        def hook(layer: nn.Module, _: Any, output: Any) -> None:
            first = output if isinstance(output, Tensor) else output[0]
            shape = " x ".join(["batch", *map(str, first.shape[1:])]) if isinstance(first, Tensor) else ""
            count = sum(p.numel() for p in layer.parameters(recurse=False))
            rows.append([name, type(layer).__name__, shape, f"{count:,}" if count else ""])

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
            rows.append([name, type(layer).__name__, "", f"{count:,}"])
    total = sum(p.numel() for p in net.parameters())
    trainable = sum(p.numel() for p in net.parameters() if p.requires_grad)
    table = tabulate(
        rows,
        headers=["layer", "type", "output shape", "parameters"],
        tablefmt="simple",
        colalign=("left", "left", "left", "right"),
        disable_numparse=True,
    )
    return f"{table}\n\n{total:,} parameters, {trainable:,} of them trained"
