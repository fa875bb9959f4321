"""The state of a training run. A checkpoint holds all of it, so that the run can be resumed exactly."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from engine.checkpoints import save_checkpoint
from engine.commands import command_line
from engine.devices import SharedCores, autocast, choose_precision, get_random_states, set_random_states
from engine.experiments import Experiment
from engine.loaders import batches_on
from engine.metrics import goal_of, totals_of
from engine.optimizers import Schedule, current_rate, freeze, make_optimizer
from engine.ranking import best_epoch
from engine.records import DEMONSTRATION, Summaries, describe_epoch, gradient_norms, write_results
from engine.torch_network import predictor_of
from utils import Progress, UserError, logger, write_atomically

MOST_NAMED = 100  # examples of a batch, in a message


class Diverged(UserError):
    """The loss, its gradient, or a weight is not finite; exit status 3."""

    exit_status = 3
    status = "diverged"  # in run.json


class Run:
    """One run of an experiment. The methods are in the order in which train.py calls them.

    Attributes:
        history: an entry per finished epoch.
        batches_done: how many batches of the current epoch are done.
        totals, seconds: the metrics counted over them, and how long they took.
    """

    def __init__(
        self,
        experiment: Experiment,
        net: nn.Module,
        loaders: dict[str, DataLoader[Any]],
        device: torch.device,
        restore_file: str | None = None,
    ):
        self.task, self.params, self.model_dir, _ = experiment
        self.net, self.loaders, self.device, self.restore_file = net, loaders, device, restore_file
        self.loader = loaders["train"]
        self.digests = digests_of(loaders)
        self.precision = choose_precision(device, self.params.precision)
        self.goal = goal_of(self.task, self.params, self.params.monitor)
        self.optimizer = make_optimizer(net, self.params)
        self.schedule = Schedule(self.optimizer, self.params, len(self.loader), self.goal)
        # On a GPU, checking every loss would stall the pipeline. A fused optimizer can skip a step whose `found_inf` is
        # 1, as for torch.amp.GradScaler. So with one of those, losses are checked every 64 steps, and before each
        # checkpoint.
        self.optimizer_skips = device.type == "cuda" and bool(self.optimizer.defaults.get("fused"))
        self.check_every = 64 if self.optimizer_skips else 1  # steps
        self.unchecked: list[tuple[int, float, Tensor, Tensor]] = []  # batch, learning rate, loss, gradient norm
        self.history: list[dict[str, Any]] = []
        self.summaries = Summaries(self.model_dir)
        self.saved: tuple[int, int] | None = None  # epoch and batch of the last checkpoint
        self.saved_at = time.monotonic()
        self.cores = SharedCores()
        self.begin_epoch()

    def begin_epoch(self) -> None:
        self.batches_done, self.seconds, self.totals = 0, 0.0, totals_of(self.task, self.params)

    @property
    def epoch(self) -> int:
        """How many epochs are finished."""
        return len(self.history)

    @property
    def step(self) -> int:
        """How many batches there have been in all."""
        return self.epoch * len(self.loader) + self.batches_done

    # -------------------------------------------------------------------------------- what train.py calls

    def has_epochs_left(self) -> bool:
        """Whether another epoch is to be trained. `end_epoch` counts them."""
        return not is_finished(self.history, self.params, self.goal)

    def batches(self) -> Iterator[tuple[Any, Any]]:
        """The remaining batches of the current epoch, (inputs, labels) on the device. Before validation, a checkpoint
        is saved if the last one is old, since validation may take long.

        Raises:
            Stopped: a signal came; the run is between two batches.
        """
        self.loader.batch_sampler.set_epoch(self.epoch, self.batches_done)  # type: ignore[union-attr]
        freeze(self.net, self.optimizer, self.epoch)
        description = f"epoch {self.epoch + 1}/{self.params.num_epochs}"
        self.progress = Progress(self.loader, description, done=self.batches_done)
        self.started = time.perf_counter() - self.seconds
        yield from batches_on(self.device, self.progress)
        self.check_now()
        self.save_if_older(self.params.checkpoint_minutes / 10)

    def autocast(self) -> torch.autocast:
        return autocast(self.device, self.precision)

    def check_finite(self, loss: Tensor, gradient_norm: Tensor) -> None:
        """Remember loss and gradient norm, and check them if that is due. Raises Diverged."""
        loss = loss.detach()
        self.unchecked.append((self.batches_done, current_rate(self.optimizer), loss, gradient_norm))
        if len(self.unchecked) == self.check_every:
            self.check_now()
        if self.optimizer_skips:
            self.optimizer.found_inf = 1 - torch.isfinite(loss + gradient_norm).float()  # type: ignore[attr-defined]

    def after_step(self, outputs: Any, labels: Any, loss: Tensor, gradient_norm: Tensor) -> None:
        """Count the batch. Write summaries, and save a checkpoint, when they are due.

        Args:
            gradient_norm: of all gradients together, before they were clipped.
        """
        self.totals.add(outputs, labels, loss)
        self.batches_done += 1
        self.seconds = time.perf_counter() - self.started
        self.progress.show(self.totals.compute)  # at most once a second, since it waits for a GPU
        if self.step % self.params.save_summary_steps == 0 or self.batches_done == len(self.loader):
            numbers = gradient_norms(self.net, gradient_norm) | {"learning_rate": self.schedule.learning_rate}
            self.summaries.write("train_summaries", numbers, self.step)
        self.save_if_older(self.params.checkpoint_minutes)

    def end_epoch(self, train_metrics: dict[str, float], val_metrics: dict[str, float]) -> None:
        """Add the metrics to the history, save a checkpoint, and write the results.

        Raises:
            Diverged: the loss on val is not finite. No checkpoint of the epoch's end is saved.
        """
        params = self.params
        if not math.isfinite(val_metrics["loss"]):
            raise Diverged(
                f"The loss on val is {val_metrics['loss']} after epoch {self.epoch + 1}, at a learning rate of up to"
                f" {params.learning_rate:g}. Try a smaller learning_rate, warmup_epochs, or clip_grad_norm."
            )
        num_examples = len(self.loader.dataset)  # type: ignore[arg-type]
        self.schedule.end_epoch(val_metrics[params.monitor])
        self.history.append(
            {
                "epoch": self.epoch + 1,
                "train": train_metrics,
                "val": val_metrics,
                "learning_rate": self.schedule.learning_rate,
                "seconds": round(self.seconds, 3),
                "examples_per_second": round(num_examples / self.seconds, 1),
            }
        )
        self.begin_epoch()
        self.summaries.write("train_summaries", train_metrics, self.step)
        self.summaries.write("eval_summaries", val_metrics, self.step)
        best = self.best()
        self.save(is_best=best is self.history[-1])
        write_results(self.model_dir, self.history, best)
        self.demonstrate(best is self.history[-1])
        logger.info("%s", describe_epoch(self.history[-1], params.num_epochs, best is self.history[-1]))
        if self.device.type == "cpu":
            self.cores.check()

    def demonstrate(self, is_best: bool) -> None:
        """Let the network show what it has learnt, if the task says how: in TensorBoard, and the best in a file."""
        if demonstrate := self.task.optional("demonstrate"):
            text = demonstrate(predictor_of(self.task, self.params, self.net))
            self.summaries.show_text("eval_summaries", text, self.step)
            if is_best:
                write_atomically(self.model_dir / DEMONSTRATION, text + "\n")

    # ------------------------------------------------------------------------------------- checkpoints

    def best(self) -> dict[str, Any]:
        """The entry of the best epoch so far."""
        return best_epoch(self.history, self.params.monitor, self.goal)

    def save_if_older(self, minutes: float) -> None:
        """Save a checkpoint if the last one is older than `minutes`."""
        if time.monotonic() - self.saved_at > 60 * minutes:
            self.save()

    def save(self, is_best: bool = False) -> None:
        """Save a checkpoint, unless nothing has happened since the last one.

        Raises:
            Diverged: a loss or gradient since the last check was not finite, or a weight is not.
            UserError: the disk is full.
        """
        self.saved_at = time.monotonic()
        if self.saved == (self.epoch, self.batches_done):
            return
        self.check_now()
        self.check_weights()
        self.summaries.flush()
        save_checkpoint(
            {
                # where the run is
                "epoch": self.epoch,
                "batch": self.batches_done,
                "history": self.history,
                # the state to resume with
                "state_dict": self.net.state_dict(),
                "optim_dict": self.optimizer.state_dict(),
                "scheduler": self.schedule.state_dict(),
                "random_states": get_random_states(self.device),
                "totals": self.totals.state_dict(),
                "seconds": self.seconds,
                # what is compared when it is resumed, and all that a prediction needs
                "restore_file": self.restore_file,
                "params": self.params.model_dump(),
                "data": self.params.data.model_dump(),
                "digests": self.digests,
            },
            self.model_dir,
            is_best,
        )
        self.saved = (self.epoch, self.batches_done)

    def resume(self, checkpoint: dict[str, Any]) -> None:
        """Restore the state in `checkpoint`, but for the weights, which engine/start.py has put into the network."""
        self.history, self.batches_done, self.seconds = (checkpoint[name] for name in ("history", "batch", "seconds"))
        self.optimizer.load_state_dict(checkpoint["optim_dict"])
        self.schedule.load_state_dict(checkpoint["scheduler"])
        self.totals.load_state_dict(checkpoint["totals"], self.device)
        set_random_states(checkpoint["random_states"], self.device)
        self.summaries.purge_step = self.step + 1
        self.saved = (self.epoch, self.batches_done)

    @property
    def place(self) -> str:
        """Where the run is, in words."""
        if not self.batches_done:
            return f"after epoch {self.epoch}"
        if self.batches_done == len(self.loader):
            return f"in epoch {self.epoch + 1}, before its validation"
        return f"in epoch {self.epoch + 1}, after batch {self.batches_done} of {len(self.loader)}"

    # -------------------------------------------------------------------------------------- divergence

    def check_now(self) -> None:
        """Raise Diverged if the loss or gradient of an unchecked step was not finite."""
        if not self.unchecked:
            return
        numbers = torch.stack([number for *_, loss, norm in self.unchecked for number in (loss, norm)]).tolist()
        for (batch, learning_rate, *_), loss, norm in zip(self.unchecked, numbers[::2], numbers[1::2], strict=True):
            if not math.isfinite(loss + norm):
                raise Diverged(self._describe_divergence(batch, learning_rate, loss, norm))
        self.unchecked.clear()

    def check_weights(self) -> None:
        """Raise Diverged if a weight, or a running mean, overflowed in a step whose loss and gradient are finite."""
        numbers = self.net.state_dict()
        weights = {name: number for name, number in numbers.items() if number.is_floating_point()}
        are_finite = torch.stack([weight.isfinite().all() for weight in weights.values()]).tolist()
        if broken := [name for name, is_finite in zip(weights, are_finite, strict=True) if not is_finite]:
            raise Diverged(
                f"Step {self.step}: some weights of {', '.join(broken)} became NaN or infinite, although all losses and"
                f" gradients were finite. They are not saved.\nTo begin again, {self._what_to_try()}"
            )

    def _describe_divergence(self, batch: int, learning_rate: float, loss: float, norm: float) -> str:
        sampler: Any = self.loader.batch_sampler
        sampler.set_epoch(self.epoch, batch)
        indices = next(iter(sampler)).indices.tolist()
        examples = self.loader.dataset.describe(indices[:MOST_NAMED])  # type: ignore[attr-defined]
        if len(indices) > MOST_NAMED:
            examples += f" and {len(indices) - MOST_NAMED} more"
        return (
            f"Step {self.epoch * len(self.loader) + batch + 1} (epoch {self.epoch + 1}, batch {batch + 1}): the loss is"
            f" {loss:g} and the norm of its gradient {norm:g}, at a learning rate of {learning_rate:g}."
            f" The saved weights are not affected.\nThe batch was {examples}.\n"
            f"If they are what they should be, {self._what_to_try()}"
        )

    def _what_to_try(self) -> str:
        new, params = self.model_dir.with_name("NEW"), self.params
        where = ("--model_dir", new, "--base", self.model_dir, "--data_dir", params.data_dir)
        smaller = (f"learning_rate={params.learning_rate / 10:g}", "clip_grad_norm=1")
        return (
            "try a smaller learning_rate, warmup_epochs, or clip_grad_norm:\n"
            f"  {command_line('train.py', *where, '--set', *smaller)}"
        )


def digests_of(loaders: dict[str, DataLoader[Any]]) -> dict[str, str]:
    """The hash of the examples of each split."""
    return {split: loader.dataset.digest() for split, loader in loaders.items()}  # type: ignore[attr-defined]


def is_finished(history: list[dict[str, Any]], params: Any, goal: Any) -> bool:
    """Whether all epochs are done, or early stopping ends the run here."""
    if not history:
        return False
    epochs_since_best = len(history) - best_epoch(history, params.monitor, goal)["epoch"]
    return len(history) >= params.num_epochs or 0 < params.early_stopping_patience <= epochs_since_best
