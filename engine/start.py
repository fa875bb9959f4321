"""How a run starts: new, from the weights of another, resumed where it stopped, or not at all since it is finished."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import nn
from torch.utils.data import DataLoader

from engine.checkpoints import fetch_checkpoint, list_checkpoints, load_newest, mend, restore_weights
from engine.commands import command_line
from engine.devices import choose_device, to_device
from engine.experiments import Experiment, check_same_data, read_run
from engine.loaders import fetch_dataloaders
from engine.locks import LOCK, LOCK_HOLDER, locked
from engine.metrics import goal_of
from engine.optimizers import scales_of
from engine.params import MAY_CHANGE, TrainingParams, differences
from engine.pictures import draw_curves
from engine.ranking import Goal, best_epoch
from engine.records import DEMONSTRATION, describe_run, keep_previous, recorded, write_results
from engine.run import Run, digests_of, is_finished
from engine.signals import Stopped, stop
from engine.summary import summarize
from engine.torch_network import predictor_of
from utils import UserError, check_writable, kept_for_the_log, logger, save_json, set_logger, write_atomically


class Start(NamedTuple):
    """How a run starts, and the checkpoint that it starts from."""

    kind: Literal["new", "from weights", "resumed", "finished"]
    restore_file: str | None = None  # the --restore_file that the run began with
    checkpoint: dict[str, Any] | None = None


class Finished:
    """Takes the place of a Run that has no epochs left."""

    def has_epochs_left(self) -> bool:
        return False


@contextlib.contextmanager
def open_run(
    experiment: Experiment, device_name: str = "auto", restore_file: str | None = None, restart: bool = False
) -> Iterator[Any]:
    """Start or resume the run of an experiment. The `with` block trains it.

    All checks come first: a run that cannot start changes nothing but damaged checkpoints, which are set aside.
    A signal in the block saves a checkpoint. When the block ends, the final results are written.

    Args:
        restore_file: begin a new run from these weights: `best`, `last`, or a path. An unfinished run that began from
            the same file is resumed instead, since a command that is repeated was most likely killed.
        restart: begin a new run in any case. What is there moves to previous/.

    Yields:
        A Run, or a Finished.

    Raises:
        UserError: the run cannot start; the message says why.
        Busy: another run is going on in the folder.
    """
    task, params, model_dir, params_to_write = experiment
    task.check()
    device, goal = choose_device(device_name), goal_of(task, params, params.monitor)
    is_new_folder = not model_dir.exists()
    check_writable(model_dir)
    with locked(model_dir), _left_as_found(model_dir, is_new_folder), kept_for_the_log():
        start = choose_start(experiment, goal, restore_file, restart)
        before, now = read_run(model_dir), describe_run(params, goal, device, start.restore_file)
        if start.checkpoint and start.kind in ("resumed", "finished"):
            _mend(model_dir, start, goal, params)
        if start.kind == "finished":
            if params_to_write:
                save_json(params_to_write, model_dir / "params.json")
            _say_finished(experiment, goal, start.checkpoint, before, now)
            yield Finished()
            return
        net, loaders = _prepare(experiment, start, device)
        if params_to_write:
            save_json(params_to_write, model_dir / "params.json")
        if start.kind != "resumed":
            keep_previous(model_dir)  # only now, after all checks of the new run
            set_logger(model_dir / "train.log")
        with recorded(model_dir, now), stop.deferred():
            run = Run(experiment, net, loaders, device, start.restore_file)
            if start.kind == "resumed":
                _resume(run, start.checkpoint or {}, before, now)
            else:
                if start.kind == "from weights":
                    run.save()  # at once: `restore_file` may be in previous/ now
                logger.info("%s", _summary_of(net, params, loaders, device))
            del start  # free the checkpoint's memory: the run has taken over what it needs
            size, precision = len(run.loader.dataset), str(run.precision).removeprefix("torch.")  # type: ignore[arg-type]
            logger.info("Training on %d examples, on %s in %s", size, device, precision)
            try:
                yield run
            except Stopped:
                run.save()
                logger.info("Saved %s. To go on: %s", run.place, command_line("train.py", "--model_dir", model_dir))
                raise
            run.summaries.close()
            _finish(experiment, run.history, run.best())


@contextlib.contextmanager
def _left_as_found(model_dir: Path, is_new_folder: bool) -> Iterator[None]:
    """If a new experiment cannot start, leave no trace of it, so that another one can be tried under its name."""
    try:
        yield
    except UserError:
        if not (model_dir / "params.json").exists():
            for name in (LOCK_HOLDER, LOCK):
                (model_dir / name).unlink(missing_ok=True)
            if is_new_folder:
                with contextlib.suppress(OSError):  # somebody has put something there meanwhile
                    model_dir.rmdir()
        raise


# ------------------------------------------------------------------------------------ choosing a start


def choose_start(experiment: Experiment, goal: Goal, restore_file: str | None, restart: bool) -> Start:
    """How the run starts; see `open_run`.

    Raises:
        UserError: there is nothing to restore, or the interrupted run had other parameters or data.
    """
    _, params, model_dir, _ = experiment
    checkpoint = None if restart else load_newest(model_dir)
    is_over = read_run(model_dir).get("status") == "finished"
    if restore_file and (checkpoint is None or checkpoint["restore_file"] != restore_file or is_over):
        place = model_dir
        if restore_file in ("best", "last") and not list_checkpoints(model_dir / f"{restore_file}_weights"):
            place = max((model_dir / "previous").glob("*"), default=model_dir)  # killed when they had just been moved
        weights = fetch_checkpoint(place, restore_file)
        check_same_data(weights, params.data)
        return Start("from weights", restore_file, weights)
    if checkpoint is None:
        return Start("new")
    check_same_data(checkpoint, params.data)
    _check_same_run(model_dir, params, checkpoint)
    kind: Any = "finished" if is_finished(checkpoint["history"], params, goal) else "resumed"
    return Start(kind, checkpoint["restore_file"], checkpoint)


def _check_same_run(model_dir: Path, params: TrainingParams, checkpoint: dict[str, Any]) -> None:
    """Raises UserError that lists how parameters or data differ from those that the run in `checkpoint` began with."""
    # a parameter that is newer than the checkpoint had the effect of its default
    before, now = type(params).model_construct().model_dump() | checkpoint["params"], params.model_dump()
    frozen = now.keys() - MAY_CHANGE
    begun_with = params.model_copy(update={"num_epochs": before["num_epochs"]})
    is_fixed = is_stretched(params) or is_stretched(begun_with)
    if now["num_epochs"] < checkpoint["epoch"] or is_fixed:
        frozen |= {"num_epochs"}
    changes = differences({name: before.get(name) for name in frozen}, {name: now[name] for name in frozen})
    changed = list(changes.values())
    if checkpoint["data"]["digest"] != params.data.digest:
        changed.append(f"data: {before['data_dir']} then, {params.data_dir} now, and not the same (by their digests)")
    if is_fixed and "num_epochs" in changes:
        what = params.scheduler if params.scheduler in ("cosine", "onecycle") else "a warm-up of half the run"
        changed.append(f"({what} stretches the learning rate over all epochs, so their number is fixed)")
    if changed:
        raise UserError(
            "\n  ".join([f"{checkpoint['path']}: the run here began with other parameters or data", *changed])
            + f"\nChange them back to go on with it, or {_how_else(model_dir, params, checkpoint)}"
        )


def _check_same_files(experiment: Experiment, checkpoint: dict[str, Any], loaders: dict[str, DataLoader[Any]]) -> None:
    """Raises UserError when the files of the data set were edited after they were built."""
    for split, digest in digests_of(loaders).items():
        if checkpoint["digests"][split] != digest:
            folder = loaders[split].dataset.folder  # type: ignore[attr-defined]
            raise UserError(
                f"{folder}: changed since the run here began, after it was built."
                f"\nPut it back, or {_how_else(experiment.model_dir, experiment.params, checkpoint)}"
            )


def _how_else(model_dir: Path, params: TrainingParams, checkpoint: dict[str, Any]) -> str:
    """What to do with a run that cannot go on."""
    where = ("--model_dir", model_dir.with_name("NEW"), "--base", model_dir, "--data_dir", params.data_dir)
    return (
        "start again with --restart (which keeps the old run in previous/),\n"
        "or start a new experiment from its weights, if they are for the same network:\n  "
        + command_line("train.py", *where, "--restore_file", checkpoint["path"])
    )


def is_stretched(params: TrainingParams) -> bool:
    """Whether the schedule depends on the number of epochs from the first on; so does a warm-up that is shortened."""
    return params.scheduler in ("cosine", "onecycle") or params.warmup_epochs > params.num_epochs / 2


# -------------------------------------------------------------------------------------------- starting


def _prepare(
    experiment: Experiment, start: Start, device: torch.device
) -> tuple[nn.Module, dict[str, DataLoader[Any]]]:
    """The network with the weights that it starts from, and the loaders. Raises UserError if anything does not fit."""
    task, params, *_ = experiment
    torch.manual_seed(params.seed)
    loaders = fetch_dataloaders(task, ["train", "val"], params, device)
    net = task.Net(params).to(device)
    if start.checkpoint:
        restore_weights(net, start.checkpoint)
    elif hasattr(net, "load_pretrained"):
        net.load_pretrained()
    scales_of(net, params)  # raises if learning_rate_scale names nothing
    if start.checkpoint and start.kind == "resumed":
        _check_same_files(experiment, start.checkpoint, loaders)
    return net, loaders


def _mend(model_dir: Path, start: Start, goal: Goal, params: TrainingParams) -> None:
    """Mend what is damaged in the checkpoints of a run, and say so in its log if it goes on."""
    if start.kind == "resumed":
        set_logger(model_dir / "train.log")
    checkpoint = start.checkpoint or {}
    history = checkpoint["history"]
    mend(model_dir, checkpoint, best_epoch(history, params.monitor, goal)["epoch"] if history else 0)


def _resume(run: Run, checkpoint: dict[str, Any], before: dict[str, Any], now: dict[str, Any]) -> None:
    """Resume, and warn if the code changed, or what decides how sums are rounded."""
    for names, difference in ((["git_commit"], ""), (["device", "precision", "threads", "versions"], ", by rounding")):
        known = [name for name in names if before.get(name)]
        for change in differences({name: before[name] for name in known}, {name: now[name] for name in known}).values():
            logger.warning("%s. So the run may end differently%s.", change, difference)
    run.resume(checkpoint)
    logger.info("Going on %s (%s).", run.place, checkpoint["path"])


def _summary_of(
    net: nn.Module, params: TrainingParams, loaders: dict[str, DataLoader[Any]], device: torch.device
) -> str:
    loader: Any = loaders["val"]
    inputs, _ = loader.dataset.__getitems__(next(iter(loader.batch_sampler)))
    return summarize(net, to_device(inputs, device), scales_of(net, params))


def _finish(experiment: Experiment, history: list[dict[str, Any]], best: dict[str, Any]) -> None:
    """Draw the curves, write what the task leaves of the best weights, and say what comes next."""
    task, params, model_dir, _ = experiment
    draw_curves(history, best["epoch"], model_dir / "curves.png")
    logger.info("Best: %s %.4f on val, after epoch %d", params.monitor, best["val"][params.monitor], best["epoch"])
    demonstrate, finish = task.optional("demonstrate"), task.optional("finish")
    if demonstrate or finish:
        net = task.Net(params)
        restore_weights(net, fetch_checkpoint(model_dir, "best"))
        if finish:
            finish(net, params, model_dir)
        if demonstrate:
            text = demonstrate(predictor_of(task, params, net))
            write_atomically(model_dir / DEMONSTRATION, text + "\n")
            logger.info("What it has learnt:\n\n%s\n", text)
    logger.info("On test: %s", command_line("evaluate.py", "--model_dir", model_dir))


def _say_finished(
    experiment: Experiment, goal: Goal, checkpoint: Any, before: dict[str, Any], now: dict[str, Any]
) -> None:
    """Say what can be done with a finished run; write its results if it was stopped after its last epoch."""
    _, params, model_dir, _ = experiment
    history = checkpoint["history"]
    if before.get("status") != "finished":
        best = best_epoch(history, params.monitor, goal)
        with recorded(model_dir, now):
            write_results(model_dir, history, best)
            _finish(experiment, history, best)
    more = "--restore_file last, since its schedule has ended" if is_stretched(params) else "raise num_epochs"
    logger.info(
        "%s: finished, %d epochs on %s. To start again: --restart. To train on: %s.",
        *(model_dir, len(history), params.data_dir, more),
    )
