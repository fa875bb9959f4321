"""Vectors and recurrent layers of a trained language model -> another network that reads text."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engine.checkpoints import fetch_checkpoint, load_checkpoint
from model.layers import UNK
from utils import UserError

from .params import VectorParams

logger = logging.getLogger(__name__)

PARTS = ("encoder.forwards.", "encoder.backwards.")


@torch.no_grad()
def load_encoder(net: nn.Module, params: Any, level: str, must_fit: bool) -> None:
    """Take from the weights of params.pretrained_encoder what fits: the vectors of tokens that both vocabularies have,
    and recurrent layers of the same shape. The log says what was taken, and what was not.

    Args:
        level: of the tokens of `net`, "char" or "word".
        must_fit: whether all of its layers must be taken, since they are to be frozen.

    Raises:
        UserError: there are no such weights, or they are for other tokens, or nothing fits.
    """
    place = Path(params.pretrained_encoder)
    if not place.exists():
        raise UserError(f"pretrained_encoder: {place}: no such file, and no such experiment.")
    checkpoint = fetch_checkpoint(place, "best") if place.is_dir() else load_checkpoint(place)
    theirs, path = checkpoint["state_dict"], checkpoint["path"]
    source, data = checkpoint.get("params") or {}, checkpoint.get("data") or {}
    their_level = data.get("level") or source.get("level", "word")
    tokens = data.get("tokens") or data.get("chars" if their_level == "char" else "words")
    if not tokens or "embedding.weight" not in theirs:
        raise UserError(f"pretrained_encoder: {path}: not the weights of a network that reads text.")
    if their_level != level:
        raise UserError(f"pretrained_encoder: {path}: reads {their_level}s, but this network reads {level}s.")
    taken, left = take_vectors(net, params, source, tokens, theirs["embedding.weight"], level)
    ours = net.state_dict()
    for name in (name for name in ours if name.startswith(PARTS)):
        layer = name.rpartition(".")[0]
        if name not in theirs:
            left.setdefault(layer, "not there")
        elif theirs[name].shape != ours[name].shape:
            left.setdefault(layer, f"{shape(theirs[name])} there, {shape(ours[name])} here")
    for name in (name for name in ours if name.startswith(PARTS) and name.rpartition(".")[0] not in left):
        ours[name].copy_(theirs[name])
        taken[name.rpartition(".")[0]] = ""
    described = {
        what: ", ".join(f"{name} ({why})" if why else name for name, why in parts.items())
        for what, parts in (("taken", taken), ("left", left))
    }
    if not taken or (must_fit and any(not name.startswith("encoder.backwards") for name in left)):
        needs = "With freeze_epochs, all layers that read forwards must fit. " if taken else "Nothing fits. "
        raise UserError(f"pretrained_encoder: {path}: {needs}Not taken: {described['left']}.")
    logger.info("From %s: %s.", path, described["taken"])
    if left:
        logger.info("Not from there: %s.", described["left"])


def take_vectors(
    net: Any, params: VectorParams, source: dict[str, Any], tokens: list[str], vectors: torch.Tensor, level: str
) -> tuple[dict[str, str], dict[str, str]]:
    """Copy the vectors of the tokens that both vocabularies have. Returns what was taken, and what was not."""
    weight = net.embedding.weight
    if vectors.shape[1] != weight.shape[1]:
        return {}, {"embedding": f"vectors of {vectors.shape[1]} there, of {weight.shape[1]} here"}
    normalize = VectorParams.model_construct(**source).normalize
    rows = {form: row for row, form in enumerate(dict.fromkeys(map(normalize, tokens)), start=UNK + 1)}
    both = [(number, rows[form]) for form, number in params.vocabulary.items() if form in rows]
    if not both:
        return {}, {"embedding": f"no {level} in common"}
    numbers, found = zip(*both, strict=True)
    weight[list(numbers)] = vectors[list(found)].to(weight)
    weight[UNK] = vectors[UNK].to(weight)
    return {"embedding": f"{len(both):,} of {len(params.vocabulary):,} {level}s"}, {}


def shape(tensor: torch.Tensor) -> str:
    return " x ".join(map(str, tensor.shape))
