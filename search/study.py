"""The study that remembers the trials of a search, in a file or on a server that several machines share."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, PartialFixedSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, ProgrammingError

from engine.experiments import git_commit
from engine.locks import locked
from engine.params import differences
from engine.ranking import rank
from search.space import Search
from utils import UserError, logger

STUDY = "search"  # the name of the one in study.db
HEARTBEAT = 60  # seconds; after two without a heartbeat, another driver takes the trial over
REDUCTION_FACTOR = 3  # one in 3 trials at a rung goes on to the next rung, which comes after 3 times as many epochs


def study_url(parent_dir: Path) -> str:
    path = str((parent_dir / "study.db").absolute())
    # `quote` takes no name that is not UTF-8, and only ASCII letters mean something in a URL
    return "sqlite:///" + "".join(quote(letter, safe="/:") if letter.isascii() else letter for letter in path)


class SearchStudy:
    """Optuna's study of a search.

    On a server, every driver says each minute which trials it still runs (`beat`), so that another driver can take over
    the trials of one that died. A file has only one driver, which finds them when it starts (`left_behind`).
    """

    def __init__(self, search: Search, study: optuna.Study, storage: optuna.storages.RDBStorage, is_shared: bool):
        self.search, self.study, self.storage, self.is_shared = search, study, storage, is_shared

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=states or None)

    def ask(self) -> optuna.Trial | None:
        """The next trial, with its setting; None if there are enough."""
        trials = self.trials()
        if not any(trial.state == TrialState.WAITING for trial in trials) and self.is_enough(trials):
            return None
        trial = self.study.ask()
        self.beat([trial])
        if self.is_shared and self.is_enough(self.trials()[: trial.number]):
            self.study.tell(trial, state=TrialState.FAIL)  # another driver has just asked for the last one
            return None
        return self.draw(trial)

    def draw(self, trial: optuna.Trial) -> optuna.Trial:
        """Give `trial` a setting. Values that it has already stay."""
        self.study.sampler = self.sampler_of(trial)
        for name, values in self.search.space.items():
            if isinstance(values, CategoricalDistribution):
                trial.suggest_categorical(name, values.choices)
            else:
                suggest: Any = trial.suggest_int if isinstance(values, IntDistribution) else trial.suggest_float
                suggest(name, values.low, values.high, step=values.step, log=values.log)  # type: ignore[attr-defined]
        trial.set_user_attr("driver", [socket.gethostname(), os.getpid()])
        return trial

    def sampler_of(self, trial: optuna.Trial) -> BaseSampler:
        """What draws the setting of a trial: a function of its number, so that two drivers never draw the same one."""
        seed = int(np.random.SeedSequence([self.search.seed, trial.number]).generate_state(1)[0])
        if self.search.method == "grid":
            return PartialFixedSampler(self.grid_setting(trial.number), RandomSampler(seed))
        if self.search.method == "random":
            return RandomSampler(seed)
        # with constant_liar an unfinished trial counts as a bad one, so that trials at the same time differ
        return TPESampler(seed=seed, multivariate=True, constant_liar=True)

    def grid_setting(self, number: int) -> dict[str, Any]:
        """The setting of that number. A trial beyond the last one makes up for a setting whose trial was lost."""
        if number < self.search.num_trials:
            return next(itertools.islice(self.search.grid(), number, None))
        taken = [trial.params for trial in self.trials() if not is_lost(trial)]
        return next((setting for setting in self.search.grid() if setting not in taken), {})

    def is_enough(self, trials: Sequence[FrozenTrial]) -> bool:
        return sum(not is_lost(trial) for trial in trials) >= self.search.num_trials

    def left_behind(self) -> list[tuple[optuna.Trial, int]]:
        """The trials of a driver that was killed, and how often each was judged.

        The driver of a file holds its lock, so no other one is running these.
        """
        if self.is_shared:
            return []  # `beat` sees to them
        running = self.trials(TrialState.RUNNING)
        # the driver may have been killed before it had drawn the setting
        return [(self.draw(optuna.Trial(self.study, id_of(left))), len(left.intermediate_values)) for left in running]

    def beat(self, trials: Iterable[optuna.Trial]) -> None:
        """Record that these trials are still being run, and enter those of silent drivers again."""
        if not self.is_shared:
            return
        for trial in trials:
            self.storage.record_heartbeat(id_of(trial))
        long_ago = datetime.now() - timedelta(seconds=2 * HEARTBEAT)
        for left in self.trials(TrialState.RUNNING):
            # Its driver was killed between Optuna's answer and the first heartbeat. A trial without any never counts as
            # silent, so it gets one.
            if "driver" not in left.user_attrs and left.datetime_start and left.datetime_start < long_ago:
                self.storage.record_heartbeat(id_of(left))
                optuna.Trial(self.study, id_of(left)).set_user_attr("driver", ["unknown", 0])
        optuna.storages.fail_stale_trials(self.study)


def id_of(trial: optuna.Trial | FrozenTrial) -> int:
    """What a storage calls a trial. Optuna has no public name for it."""
    return trial._trial_id


def is_lost(trial: FrozenTrial) -> bool:
    """Whether a trial does not count.

    Either its driver died, and the same setting was entered again as another trial. Or two drivers asked at once when
    only one trial was left to try, and the later one gave its trial up.
    """
    return trial.state == TrialState.FAIL and "reason" not in trial.user_attrs


def best_of(search: Search, trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """The best of the trials that were trained to the end, of equals the one of lower loss; None if there is none."""

    def key(trial: FrozenTrial) -> tuple[bool, float, float]:
        return rank({**trial.user_attrs, search.metric: trial.value or 0.0}, search.metric, search.goal)

    return min((trial for trial in trials if trial.state == TrialState.COMPLETE), key=key, default=None)


# ------------------------------------------------------------------------------------------- opening one


@contextlib.contextmanager
def opened_study(search: Search, url: str | None, prune: bool) -> Iterator[SearchStudy]:
    """The study of `search` in the storage at `url`, or in study.db. The lock of a file keeps other drivers away.

    Raises:
        UserError: the storage cannot be reached, another driver uses the file, or the study is of another search.
    """
    url = url or study_url(search.parent_dir)
    folder = folder_of(url)
    name = STUDY if folder and folder.samefile(search.parent_dir) else search.parent_dir.resolve().name
    with locked(folder) if folder else contextlib.nullcontext():
        try:
            yield open_study(search, url, name, prune)
        except optuna.exceptions.StorageInternalError as error:
            raise UserError(f"{cannot_be_reached(url, error)} The same command goes on.") from None


def folder_of(url: str) -> Path | None:
    """The folder of an SQLite file; None if the storage is a server.

    Raises:
        UserError: `url` is not a URL, or there is no such folder.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise UserError("--storage: not a URL such as postgresql://USER:PASSWORD@HOST/DATABASE.") from None
    if not is_file(url):
        return None
    if parsed.database in (None, "", ":memory:"):
        raise UserError(f"--storage {url}: names no file, so nothing would be kept. Expected sqlite:///FILE.")
    folder = Path(str(parsed.database)).parent
    if not folder.is_dir():
        raise UserError(f"--storage {url}: no folder {folder}.")
    return folder


def open_study(search: Search, url: str, name: str, prune: bool) -> SearchStudy:
    """The study `name` in the storage at `url`, made if it is not there. Raises UserError as `opened_study` does."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    warnings.filterwarnings("ignore", "Heartbeat of storage is supposed")  # `beat` sends them
    try:
        storage = open_storage(url)
        try:
            study = optuna.create_study(study_name=name, storage=storage, direction=search.goal)
        except optuna.exceptions.DuplicatedStudyError:
            study = optuna.load_study(study_name=name, storage=storage)
    except Exception as error:  # SQLAlchemy's, a driver's, or that there is no driver
        raise cannot_be_reached(url, error) from None
    check_same_search(search, study)
    # Li et al. 2020, "A system for massively parallel hyperparameter tuning". Pruned trials stay pruned.
    halving = optuna.pruners.SuccessiveHalvingPruner(search.first_rung, REDUCTION_FACTOR)
    study.pruner = halving if prune else optuna.pruners.NopPruner()
    return SearchStudy(search, study, storage, is_shared=not is_file(url))


def open_storage(url: str) -> optuna.storages.RDBStorage:
    options: dict[str, Any] = {}
    if not is_file(url):
        options = {
            "heartbeat_interval": HEARTBEAT,
            "grace_period": 2 * HEARTBEAT,
            "heartbeat_stale_trial_callback": optuna.storages.RetryHeartbeatStaleTrialCallback(),
            "engine_kwargs": {"pool_pre_ping": True},  # firewalls drop connections that idle through an epoch
        }
    if url.startswith("postgresql://") and find_spec("psycopg"):  # the other driver is psycopg2
        url = url.replace("postgresql://", "postgresql+psycopg://", 1)
    url = url.replace("{", "{{").replace("}", "}}")  # Optuna formats it
    try:
        return optuna.storages.RDBStorage(url, **options)
    except (IntegrityError, ProgrammingError):  # another driver has been making the tables at the same time
        time.sleep(2)
        return optuna.storages.RDBStorage(url, **options)


def check_same_search(search: Search, study: optuna.Study) -> None:
    """Raises UserError if the study was begun with another space, other parameters, or other data."""
    now, commit = search.describe(), git_commit()
    if "search" not in study.user_attrs:
        study.set_user_attr("search", now)
        study.set_user_attr("git_commit", commit)
    fields = type(search.params).model_fields
    defaults = {name: field.default for name, field in fields.items() if name in now}
    before: Mapping[str, Any] = defaults | study.user_attrs["search"]  # a parameter may be newer than the study
    if changed := differences(before, now):
        what = f"{search.parent_dir}: the search here began with another space or other parameters"
        hint = "Change it back to go on, or begin another search in a new folder."
        raise UserError("\n  ".join([what, *changed.values()]) + f"\n{hint}")
    if (begun_with := study.user_attrs.get("git_commit")) and begun_with != commit:
        logger.warning("git_commit: %s then, %s now. So trials may not be comparable.", begun_with, commit)


def is_file(url: str) -> bool:
    return url.startswith("sqlite")


def cannot_be_reached(url: str, error: BaseException) -> UserError:
    """An error that names the file, or the host; never the password, wherever in the URL it stands."""
    parsed = make_url(url)
    error = error.__cause__ or error  # the message of Optuna's own error names no cause
    line = (str(error).strip() or type(error).__name__).split("\n")[0]
    for secret in filter(None, (parsed.password, parsed.query.get("password"))):
        line = line.replace(str(secret), "***").replace(quote(str(secret)), "***")
    if isinstance(error, ImportError):
        line += '; PostgreSQL needs: pip install "psycopg[binary]"'
    if is_file(url):
        damaged = "not a database" in line or "malformed" in line
        hint = " Moved away, it is made anew, and runs that are finished are not trained again." if damaged else ""
        return UserError(f"{parsed.database}: cannot be used ({line}).{hint}")
    place = f"{parsed.host or parsed.query.get('host', '')}/{parsed.database or ''}"
    return UserError(f"--storage {parsed.drivername}://{place}: cannot be reached ({line}).")
