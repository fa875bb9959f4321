"""Results as a page with everything in one file: no server, no network."""

from __future__ import annotations

import base64
import contextlib
import json
import math
import time
from pathlib import Path
from typing import Any

from engine.experiments import read_history
from results.experiments import Group, Result, group_results
from results.table import make_table
from utils import write_atomically

TEMPLATE = Path(__file__).parent / "page.html"


def write_page(results: list[Result], parent_dir: Path, path: Path) -> None:
    """Write a page with a table and the curves of each task and data set."""
    trained = [result for result in results if result.is_trained]
    untrained = f", {len(results) - len(trained)} more not trained yet" if len(trained) < len(results) else ""
    data = {
        "title": str(parent_dir),
        "about": f"{len(trained)} experiments{untrained}, {time.strftime('%Y-%m-%d %H:%M')}",
        "groups": [describe_group(group, parent_dir) for group in group_results(trained)],
    }
    # NaN is no JSON, and a closing tag would end the script
    text = json.dumps(without_nan(data), allow_nan=False).replace("<", "\\u003c")
    write_atomically(path, TEMPLATE.read_text(encoding="utf-8").replace("DATA", text, 1))


def describe_group(group: Group, parent_dir: Path) -> dict[str, Any]:
    return {
        "title": group.title,
        "metric": group.metric,
        **make_table(group.results, group.metric)._asdict(),
        "experiments": [describe(result, group.metric, parent_dir) for result in group.results],
    }


def describe(result: Result, metric: str, parent_dir: Path) -> dict[str, Any]:
    folder = parent_dir / result.name
    history = read_history(folder)
    names = list(dict.fromkeys(["loss", metric, *(history[0]["val"] if history else [])]))[:3]
    picture = ""
    with contextlib.suppress(FileNotFoundError):
        content = base64.b64encode((folder / "confusion_matrix.png").read_bytes()).decode()
        picture = f"data:image/png;base64,{content}"
    curves = {name: {s: [entry[s].get(name) for entry in history] for s in ("train", "val")} for name in names}
    return {
        "name": result.name,
        "folder": str(folder),
        "params": result.params,
        "error": result.error,
        "curves": curves if history else {},
        "picture": picture,
    }


def without_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: without_nan(part) for name, part in value.items()}
    return [without_nan(part) for part in value] if isinstance(value, list | tuple) else value
