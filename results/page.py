"""The experiments of a folder as a picture and as a page."""

from __future__ import annotations

import base64
import contextlib
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.experiments import read_history
from engine.pictures import draw_results
from utils import write_atomically

if TYPE_CHECKING:
    from results.experiments import Experiment

FEWEST_TRIALS = 8  # that say something of a parameter's importance
TEMPLATE = Path(__file__).parent / "page.html"


def searched_params(experiments: Sequence[Experiment]) -> dict[str, list[Any]]:
    """The values of each parameter that is not the same in all experiments, seeds and folders aside."""
    names = list(dict.fromkeys(name for experiment in experiments for name in experiment.params))
    columns = {name: [experiment.params.get(name) for experiment in experiments] for name in names}
    return {
        name: values
        for name, values in columns.items()
        if name not in ("seed", "data_dir", "monitor") and len({json.dumps(value) for value in values}) > 1
    }


def is_log(name: str, values: Sequence[Any], parent_dir: Path) -> bool:
    """Whether the search was logarithmic in this parameter; for a list of choices, whether they span a factor of 30."""
    with contextlib.suppress(OSError, ValueError, KeyError, AttributeError):
        return bool(json.loads((parent_dir / "search.json").read_text())["space"][name].get("log", False))
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    return bool(numbers) and min(numbers) > 0 and max(numbers) / min(numbers) >= 30


def read_importance(parent_dir: Path) -> tuple[dict[str, float], str]:
    """How much each parameter decides which trials are the best, by the study that search_hyperparams.py left here.

    PED-ANOVA (Watanabe et al. 2023, "PED-ANOVA: Efficiently quantifying hyperparameter importance in arbitrary
    subspaces"). Where few trials were trained to the end, the best are those when they were judged first, as all were.

    Returns:
        name -> share, empty if there are too few trials to say; and "", or " after epoch 2".
    """
    if not (parent_dir / "study.db").is_file():
        return {}, ""
    import optuna

    from search.study import STUDY, study_url

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study, when = optuna.load_study(study_name=STUDY, storage=study_url(parent_dir)), ""
        trials = study.get_trials(deepcopy=False)
        if sum(trial.state == optuna.trial.TrialState.COMPLETE for trial in trials) < FEWEST_TRIALS:
            first = min((min(trial.intermediate_values) for trial in trials if trial.intermediate_values), default=0)
            judged = [trial for trial in trials if first in trial.intermediate_values]
            if len(judged) < FEWEST_TRIALS:
                return {}, ""
            study, when = optuna.create_study(direction=study.direction), f" after epoch {first}"
            for trial in judged:
                study.add_trial(
                    optuna.create_trial(
                        value=trial.intermediate_values[first], params=trial.params, distributions=trial.distributions
                    )
                )
        return optuna.importance.get_param_importances(study), when
    except (KeyError, ValueError, RuntimeError):  # there is no study, or all trials are the same
        return {}, ""


def draw(experiments: Sequence[Experiment], parent_dir: Path, path: Path) -> bool:
    """Draw what was found, of experiments of one task, the best first. Returns whether any was trained."""
    histories = {experiment.name: read_history(parent_dir / experiment.name) for experiment in experiments}
    trained = [experiment for experiment in experiments if histories[experiment.name]]
    if not trained:
        return False
    metric = trained[0].monitor
    curves = [[entry["val"].get(metric, math.nan) for entry in histories[e.name]] for e in trained]
    searched = searched_params(trained)
    logs = {name: is_log(name, values, parent_dir) for name, values in searched.items()}
    names, values = [e.name for e in trained], [e.metrics.get(metric) for e in trained]
    importance, when = read_importance(parent_dir)
    is_finished = [e.status == "finished" for e in trained]
    draw_results(metric, names, values, is_finished, curves, searched, logs, importance, when, path)
    return True


def write_page(
    groups: Sequence[tuple[Sequence[Experiment], list[str], list[list[Any]]]], parent_dir: Path, path: Path
) -> None:
    """One page with all in it: no server, no network.

    Args:
        groups: of each task the experiments, best first, and the header and rows of their table.
    """
    count = sum(len(experiments) for experiments, _, _ in groups)
    data = {
        "title": str(parent_dir),
        "about": f"{count} experiments, {time.strftime('%Y-%m-%d %H:%M')}",
        "groups": [
            {
                "task": experiments[0].params.get("task", ""),
                "metric": experiments[0].monitor,
                "header": header,
                "rows": rows,
                "experiments": [describe(experiment, parent_dir) for experiment in experiments],
            }
            for experiments, header, rows in groups
            if experiments
        ],
    }
    # NaN is no JSON, and a closing tag would end the script
    text = json.dumps(without_nan(data), allow_nan=False).replace("<", "\\u003c")
    write_atomically(path, TEMPLATE.read_text(encoding="utf-8").replace("DATA", text, 1))


def describe(experiment: Experiment, parent_dir: Path) -> dict[str, Any]:
    folder = parent_dir / experiment.name
    history = read_history(folder)
    names = list(dict.fromkeys(["loss", experiment.monitor, *(history[0]["val"] if history else [])]))[:3]
    picture = ""
    with contextlib.suppress(FileNotFoundError):
        picture = base64.b64encode((folder / "confusion_matrix.png").read_bytes()).decode()
    error = ""
    with contextlib.suppress(OSError, ValueError):
        error = json.loads((folder / "run.json").read_text()).get("error", "")
    return {
        "name": experiment.name,
        "folder": str(folder),
        "params": experiment.params,
        "error": error,
        "curves": {
            name: {split: [entry[split].get(name) for entry in history] for split in ("train", "val")}
            for name in names
            if history
        },
        "picture": picture and f"data:image/png;base64,{picture}",
    }


def without_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: without_nan(part) for name, part in value.items()}
    return [without_nan(part) for part in value] if isinstance(value, list | tuple) else value
