"""The weights that answer, and new ones as soon as they are there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from engine.checkpoints import list_checkpoints
from engine.predicting import Predictor
from serving.batching import Batcher
from utils import UserError, logger

SECONDS = 1.0  # between two looks


class Weights:
    """A file with weights, or the best weights of an experiment, which change while it is trained.

    Args:
        place: the file, or the folder of the experiment.
        load: makes a predictor of what is there.
    """

    def __init__(self, place: Path, load: Callable[[], Predictor]):
        self.place, self._load = place, load
        self.loaded: tuple[Path, int, int] | None = None

    def load(self) -> Predictor:
        """Raises UserError if there are no weights, or they cannot be used."""
        self.loaded = self._find()  # before loading: what comes meanwhile is loaded next
        return self._load()

    def load_if_new(self) -> Predictor | None:
        """New weights, if there are any. If they cannot be used, the log says so, and None is returned."""
        if (found := self._find()) in (None, self.loaded):
            return None
        try:
            return self.load()
        except UserError as error:
            logger.warning("New weights cannot be used, so the old ones go on answering: %s", error)
        except Exception:
            logger.exception("%s cannot be loaded, so the old weights go on answering:", found and found[0])
        return None

    def _find(self) -> tuple[Path, int, int] | None:
        """The file whose weights are to answer, and what changes when it is replaced; None if there is none."""
        try:
            path = list_checkpoints(self.place / "best_weights")[-1] if self.place.is_dir() else self.place
            status = path.stat()
        except (OSError, IndexError):
            return None
        return path, status.st_mtime_ns, status.st_size


async def follow(weights: Weights, batcher: Batcher) -> None:
    """Let new weights answer, until this is cancelled. The old ones answer what they have read."""
    while True:
        await asyncio.sleep(SECONDS)
        if predictor := await asyncio.to_thread(weights.load_if_new):
            batcher.predictor = predictor
            logger.info("New weights: %s", describe_weights(predictor))


def describe_weights(predictor: Predictor) -> str:
    """A line for the log."""
    about = predictor.about
    epoch = f" of epoch {about.epoch}" if about.epoch else ""
    return f"{predictor.task}, weights{epoch}: {about.path}"
