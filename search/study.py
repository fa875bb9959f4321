"""The study that remembers the trials of a search."""

from __future__ import annotations

import itertools
import json
import math
import os
import socket
import time
import warnings
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import optuna
from optuna.storages._heartbeat import is_heartbeat_enabled
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, ProgrammingError

from search.space import Search, grid_values
from utils import UserError

STUDY = "search"  # the name of the one in study.db
HEARTBEAT = 60  # seconds; a trial whose driver has been silent for twice as long is taken over by another
REDUCTION_FACTOR = 3  # of the trials at a rung one in so many goes on to the next, which has so many times the epochs


def study_url(parent_dir: Path) -> str:
    return f"sqlite:///{quote(str((parent_dir / 'study.db').absolute()), safe='/:')}"


def folder_of(url: str) -> Path | None:
    """Where the file of an SQLite study is; None if the storage is a server.

    Raises:
        UserError: `url` is none, or there is no such folder.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise UserError("--storage: not a URL such as postgresql://USER:PASSWORD@HOST/DATABASE.") from None
    if not is_local(url):
        return None
    if parsed.database in (None, "", ":memory:"):
        raise UserError(f"--storage {url}: names no file, so nothing would be kept. Expected sqlite:///FILE.")
    folder = Path(str(parsed.database)).parent
    if not folder.is_dir():
        raise UserError(f"--storage {url}: no folder {folder}.")
    return folder


def open_study(search: Search, url: str, name: str, prune: bool) -> optuna.Study:
    """The study `name` in the storage at `url`, made if it is not there.

    Raises:
        UserError: the storage cannot be reached, or the study was begun with another space.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    warnings.filterwarnings("ignore", "Heartbeat of storage is supposed")  # `beat` sends them
    # after Li et al. 2020, "A system for massively parallel hyperparameter tuning"; nothing is promoted later
    pruner = optuna.pruners.SuccessiveHalvingPruner(search.first_rung, REDUCTION_FACTOR)
    options: dict[str, Any] = {}
    if not is_local(url):
        options = {
            "heartbeat_interval": HEARTBEAT,
            "grace_period": 2 * HEARTBEAT,
            "heartbeat_stale_trial_callback": optuna.storages.RetryHeartbeatStaleTrialCallback(),
            "engine_kwargs": {"pool_pre_ping": True},  # firewalls drop connections that idle through an epoch
        }
    try:
        try:
            storage = optuna.storages.RDBStorage(with_driver(url), **options)
        except (IntegrityError, ProgrammingError):  # another driver has been making the tables at the same time
            time.sleep(2)
            storage = optuna.storages.RDBStorage(with_driver(url), **options)
        try:
            study, is_new = optuna.create_study(study_name=name, storage=storage, direction=search.goal), True
        except optuna.exceptions.DuplicatedStudyError:
            study, is_new = optuna.load_study(study_name=name, storage=storage), False
    except Exception as error:  # SQLAlchemy's, a driver's, or that there is no driver
        raise cannot_be_reached(url, error) from None
    study.pruner = pruner if prune else optuna.pruners.NopPruner()
    before, now = study.user_attrs.get("search"), search.describe()
    if before is None:
        study.set_user_attr("search", now)
    elif before != now:
        changed = [
            f"{key}: {before.get(key, 'nothing')} then, {now.get(key, 'nothing')} now"
            for key in sorted(before.keys() | now.keys())
            if before.get(key) != now.get(key)
        ]
        raise UserError(
            "\n  ".join(
                [f"{search.parent_dir}: the search here began with another space or other parameters", *changed]
            )
            + "\nChange it back to go on, or copy params.json and search.json to a new folder."
        )
    if search.method == "grid":
        if not is_new and not is_local(url):
            wait_for_grid(study)
        enqueue_grid(study, search)
    return study


def enqueue_grid(study: optuna.Study, search: Search) -> None:
    """Enter the settings that are not there yet."""
    if study.user_attrs.get("grid") == "complete":
        return
    names = list(search.space)
    begun = [trial.system_attrs.get("fixed_params") for trial in study.get_trials(deepcopy=False)]
    there = {json.dumps(params, sort_keys=True) for params in begun}
    for values in itertools.product(*(grid_values(search.space[name]) for name in names)):
        params = dict(zip(names, values, strict=True))
        if json.dumps(params, sort_keys=True) not in there:
            study.enqueue_trial(params)
    study.set_user_attr("grid", "complete")


def wait_for_grid(study: optuna.Study) -> None:
    """Let the driver that made the study enter its settings, or else two would enter each; unless it was killed."""
    entered = -1
    while study.user_attrs.get("grid") != "complete" and len(study.get_trials(deepcopy=False)) > entered:
        entered = len(study.get_trials(deepcopy=False))
        time.sleep(5)


def is_local(url: str) -> bool:
    return url.startswith("sqlite")


def with_driver(url: str) -> str:
    """postgresql:// by whichever of its two drivers is installed; and braces as Optuna wants them."""
    if url.startswith("postgresql://") and find_spec("psycopg"):
        url = url.replace("postgresql://", "postgresql+psycopg://", 1)
    return url.replace("{", "{{").replace("}", "}}")


def cannot_be_reached(url: str, error: BaseException) -> UserError:
    """Names the file, or the host and never the password, wherever in the URL it stands."""
    parsed = make_url(url)
    error = error.__cause__ or error  # Optuna's own says nothing
    line = (str(error).strip() or type(error).__name__).split("\n")[0]
    for secret in filter(None, (parsed.password, parsed.query.get("password"))):
        line = line.replace(str(secret), "***").replace(quote(str(secret)), "***")
    if isinstance(error, ImportError):
        line += '; PostgreSQL needs: pip install "psycopg[binary]"'
    if is_local(url):
        damaged = "not a database" in line or "malformed" in line
        hint = " Moved away, it is made anew, and runs that are finished are not trained again." if damaged else ""
        return UserError(f"{parsed.database}: cannot be used ({line}).{hint}")
    place = f"{parsed.host or parsed.query.get('host', '')}/{parsed.database or ''}"
    return UserError(f"--storage {parsed.drivername}://{place}: cannot be reached ({line}).")


def ask(study: optuna.Study, search: Search) -> optuna.Trial | None:
    """The next setting; None if all are tried."""
    trials = study.get_trials(deepcopy=False)
    if not any(trial.state == TrialState.WAITING for trial in trials) and is_enough(search, trials):
        return None
    trial = study.ask()
    beat(study, [trial])
    if is_shared(study):
        trials = study.get_trials(deepcopy=False)
        if "fixed_params" not in trials[trial.number].system_attrs and is_enough(search, trials[: trial.number]):
            study.tell(trial, state=TrialState.FAIL)  # another driver was quicker
            return None
    draw(study, search, trial)
    return trial


def draw(study: optuna.Study, search: Search, trial: optuna.Trial) -> None:
    """Give `trial` a setting: a function of the seed, the trial's number, and what is known by now."""
    seed = int(np.random.SeedSequence([search.seed, trial.number]).generate_state(1)[0])
    if search.method == "tpe":
        # an unfinished trial counts as a bad one, so that trials at the same time are different ones
        study.sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
    else:
        study.sampler = optuna.samplers.RandomSampler(seed=seed)
    for name, values in search.space.items():
        trial._suggest(name, values)  # what is there already stays
    trial.set_user_attr("driver", [socket.gethostname(), os.getpid()])


def is_enough(search: Search, trials: Sequence[FrozenTrial]) -> bool:
    """Whether no setting is to be drawn any more. Those of a grid never are: they were entered at the beginning."""
    return search.method == "grid" or sum(not is_lost(trial) for trial in trials) >= search.num_trials


def is_lost(trial: FrozenTrial) -> bool:
    """Whether a driver lost it: it fell silent, and the trial began again as another; or it was quicker than needed."""
    return trial.state == TrialState.FAIL and "reason" not in trial.user_attrs


def left_behind(study: optuna.Study, search: Search) -> list[tuple[optuna.Trial, int]]:
    """The trials of a driver that was killed, and how often each was judged.

    For whoever has the lock of a study.db: then no other driver lives.
    """
    if is_shared(study):
        return []  # `beat` sees to them
    trials = []
    for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        trial = optuna.Trial(study, frozen._trial_id)
        draw(study, search, trial)  # if it was killed while it asked
        trials.append((trial, len(frozen.intermediate_values)))
    return trials


def best_of(search: Search, trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """The best that was trained to the end, by its loss where the metric is the same; None if there is none."""
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    sign = 1 if search.goal == "maximize" else -1
    return max(done, key=lambda t: (sign * (t.value or 0.0), -t.user_attrs.get("loss", math.inf)), default=None)


def beat(study: optuna.Study, trials: Iterable[optuna.Trial]) -> None:
    """Say that these trials are still being run, and let those of drivers that say nothing any more begin again."""
    if is_shared(study):
        storage: Any = study._storage
        for trial in trials:
            storage.record_heartbeat(trial._trial_id)
        long_ago = datetime.now() - timedelta(seconds=2 * HEARTBEAT)
        for left in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            # killed between Optuna's answer and its first heartbeat, without which it would never be stale
            if "driver" not in left.user_attrs and left.datetime_start and left.datetime_start < long_ago:
                storage.record_heartbeat(left._trial_id)
                storage.set_trial_user_attr(left._trial_id, "driver", ["unknown", 0])
        optuna.storages.fail_stale_trials(study)


def is_shared(study: optuna.Study) -> bool:
    """Whether other machines may be at it too."""
    return is_heartbeat_enabled(study._storage)
