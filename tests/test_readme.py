"""Every command of the README is run, on photos, text and experiments made small."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, draw_photo, draw_photos

NOT_HERE = ("git clone", "cd ", "make ", "tensorboard", "pip ", "python3 -m venv", "source ", "python -m benchmarks")


def commands_of(text: str) -> list[str]:
    """The lines of all bash blocks, without comments and continued lines joined."""
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    project = tmp_path / "project"
    ignore = shutil.ignore_patterns(".*", "__pycache__", "data", "demo", "*_weights", "*_summaries")
    shutil.copytree(ROOT, project, ignore=ignore)
    (project / "data").mkdir()
    draw_photos(project / "data" / "SIGNS")
    for number, name in enumerate(("cat", "dog")):
        for i in range(20):
            draw_photo(project / "photos" / name / f"{i}.jpg", number)
    sentences = "".join("Anna B-per\nleft O\nKent B-geo\n\n" for _ in range(20))
    for split in ("train", "valid", "test"):
        (project / "corpus").mkdir(exist_ok=True)
        (project / "corpus" / f"{split}.txt").write_text(sentences)
    (project / "data" / "kaggle").mkdir()
    rows = "".join(f"Sentence: {i},Anna,NNP,B-per\n,left,VBD,O\n" for i in range(20))
    (project / "data" / "kaggle" / "ner_dataset.csv").write_text("Sentence #,Word,POS,Tag\n" + rows)
    for path in project.glob("experiments/**/params.json"):
        values = json.loads(path.read_text())
        smaller = {"lstm_hidden_dim": 4} if values.get("task") == "sequence_tagging" else {"num_channels": 4}
        path.write_text(json.dumps({**values, "num_epochs": 1, "warmup_epochs": 0, **smaller}))
    for path in project.glob("experiments/**/search.json"):
        values = json.loads(path.read_text())
        path.write_text(json.dumps({**values, "space": {"learning_rate": [1e-3, 1e-2]}}))
    return project


@pytest.mark.slow
def test_every_command_of_the_readme(project: Path) -> None:
    commands = commands_of((ROOT / "README.md").read_text())
    ran = []
    for line in commands:
        if line.startswith(NOT_HERE):
            continue
        words = shlex.split(line)
        assert words[0] == "python", f"the test does not know how to run: {line}"
        result = subprocess.run([sys.executable, *words[1:]], cwd=project, capture_output=True, text=True)
        assert result.returncode == 0, f"{line}\n{result.stderr}"
        ran.append(words[1])
    assert {"build_dataset.py", "train.py", "evaluate.py", "search_hyperparams.py", "synthesize_results.py"} <= set(ran)


def test_makefile_targets_of_the_readme() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
