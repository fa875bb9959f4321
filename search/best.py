"""The best setting of a search, left as a folder that can be trained."""

from __future__ import annotations

from engine.checkpoints import list_checkpoints
from engine.commands import command_line
from engine.experiments import read_params_file
from engine.params import WITHOUT_EFFECT, differences
from model import TASKS
from search.study import SearchStudy, best_of
from search.workers import CONSOLE
from utils import UserError, logger, save_json


def write_best(study: SearchStudy) -> None:
    """Write the best setting to best/params.json, and say how to train it on.

    Raises:
        UserError: no trial was finished.
    """
    search, best = study.search, best_of(study.search, study.trials())
    if best is None:
        raise UserError(f"{search.parent_dir}: no trial was finished; see {CONSOLE} in their folders.")
    setting = search.setting_of(best.params)
    target, folder = search.parent_dir / "best", search.folders_of(setting)[0]
    params = read_params_file(TASKS, search.parent_dir).values | setting | {"data_dir": search.params.data_dir}
    if search.metric != search.params.monitor:
        params["monitor"] = search.metric
    of_seeds = f" (mean of {search.seeds} seeds)" if search.seeds > 1 else ""
    logger.info("Best finished trial: %s %.4f%s, %s", search.metric, best.value, of_seeds, folder)
    if (target / "run.json").exists():
        changed = differences(read_params_file(TASKS, target).values, params).keys() - WITHOUT_EFFECT
        other = " with another setting" if changed else ""
        logger.info("%s was trained%s already, and stays as it is.", target, other)
        return
    target.mkdir(exist_ok=True)
    save_json(params, target / "params.json")
    if weights := list_checkpoints(folder / "best_weights"):
        logger.info("Its setting is in %s. To train it on from its best weights:", target)
        logger.info("  %s", command_line("train.py", "--model_dir", target, "--restore_file", weights[-1]))
    else:
        logger.info("Its setting is in %s; its weights are on %s.", target, best.user_attrs["driver"][0])
