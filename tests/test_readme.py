"""Every command of the README is run, on photos, text, tables and experiments made small; what it links to is there."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from model import TASKS
from tests.conftest import ROOT, run
from tests.helpers import draw_photo, draw_photos
from tests.test_every_task import make_small

README = (ROOT / "README.md").read_text()
NOT_HERE = ("git clone", "cd ", "make ", "tensorboard", "pip ", "python3 -m venv", "source ", "python -m benchmarks")
CRITICS = (("fine", "good"), ("dull", "bad"))
SMALLER = {  # networks, by task
    "image_classification": {"num_channels": 4},
    "sequence_tagging": {"lstm_hidden_dim": 4},
    "text_classification": {},
    "language_modeling": {},
    "word_embeddings": {"embedding_dim": 8},
    "tabular_prediction": {},
}


def commands_of(text: str) -> list[str]:
    """The lines of all bash blocks, without comments and continued lines joined."""
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project with the raw files that the README speaks of."""
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
    (project / "UD").mkdir()
    rows = (
        "1-2\tHe'll\t_\t_\t_\t_\t_\t_\t_\t_\n1\tHe\the\tPRON\t_\t_\t2\t_\t_\t_\n2\t'll\twill\tAUX\t_\t_\t0\t_\t_\t_\n\n"
    )
    for split in ("train", "dev", "test"):
        (project / "UD" / f"en_ewt-ud-{split}.conllu").write_text(20 * rows)
    (project / "data" / "kaggle").mkdir()
    rows = "".join(f"Sentence: {i},Anna,NNP,B-per\n,left,VBD,O\n" for i in range(20))
    (project / "data" / "kaggle" / "ner_dataset.csv").write_text("Sentence #,Word,POS,Tag\n" + rows)
    houses = "".join(f"{1000 * i + 500},{i},{'Kent' if i % 2 else ''}\n" for i in range(50))
    reviews = "".join(f"A {word} film {i}.,{label}\n" for i in range(20) for word, label in CRITICS)
    (project / "reviews.csv").write_text("text,label\n" + reviews)
    (project / "plays.txt").write_text("ROMEO: A fine film.\nthe king and the queen, the man and the woman\n" * 60)
    (project / "other.txt").write_text("The king of the play.\n")
    (project / "names.csv").write_text("".join(f"Ada{i},Czech\nBo{i},Dutch\n" for i in range(20)))
    (project / "trees").mkdir()
    for split in ("train", "dev", "test"):
        (project / "trees" / f"{split}.txt").write_text(20 * "(3 (2 A) (3 fine))\n(1 (2 A) (1 dull))\n")
    (project / "houses.csv").write_text("price,size,town\n" + houses)
    for path in project.glob("experiments/**/params.json"):
        values = json.loads(path.read_text())
        small = SMALLER[values.get("task", "image_classification")]
        path.write_text(json.dumps({**values, "num_epochs": 1, "warmup_epochs": 0, **small}))
    for path in project.glob("experiments/**/search.json"):
        values = json.loads(path.read_text())
        path.write_text(json.dumps({**values, "space": {"learning_rate": [1e-3, 1e-2]}}))
    return project


def serve_for_a_moment(words: list[str]) -> None:
    """serve.py answers, and ends when it is told to."""
    process = subprocess.Popen(
        [sys.executable, "serve.py", *words, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    address = next(re.findall(r"http://\S+", line)[0] for line in process.stdout if "Answering at" in line)
    with urllib.request.urlopen(f"{address}/health", timeout=60) as response:
        assert json.load(response) == {"status": "ok"}
    process.terminate()
    assert process.wait(60) == 0


@pytest.mark.slow
def test_every_command_of_the_readme(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, since starting is most of what a small command does. A search needs one of its own."""
    monkeypatch.chdir(project)
    for name in TASKS:
        make_small(importlib.import_module(f"model.{name}.sample"), monkeypatch)
    ran = set()
    for line in commands_of(README):
        if line.startswith(NOT_HERE):
            continue
        python, command, *words = shlex.split(line)
        assert python == "python", f"the test does not know how to run: {line}"
        assert command.endswith(".py"), f"the test does not know how to run: {line}"
        if command == "search_hyperparams.py":
            result = subprocess.run([sys.executable, command, *words], capture_output=True, text=True)
            assert result.returncode == 0, f"{line}\n{result.stderr}"
        elif command == "serve.py":
            serve_for_a_moment(words)
        else:
            said = run(command.removesuffix(".py"), *words)
            assert said.status == 0, f"{line}\n{said.err}"
        ran.add(command)
    assert ran == {path.name for path in ROOT.glob("*.py")} - {"utils.py"}
    assert json.loads(Path("experiments/table/run.json").read_text())["params"]["hidden_dims"] == [64, 64]
    assert Path("experiments/houses/predictions_test.csv").read_text().startswith("line,price,predicted price\n")
    assert len(Path("answers.csv").read_text().splitlines()) > 2
    for name in ("photo.jpg", "other.png"):
        draw_photo(Path(name), 1)
    names: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        assert len([line for line in code.splitlines() if line and not line.startswith("#")]) <= 5
        exec(code, names)
    assert len(names["records"]) > 10


def test_makefile_targets_of_the_readme() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make ([\w-]+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "data/README.md", "benchmarks/README.md"]
)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text()):
        assert "://" in target or ((ROOT / page).parent / target).exists(), target


def test_shipped_experiments_and_files_of_the_tree_exist() -> None:
    shipped = README.split("Shipped experiments:")[1].split("###")[0]
    for row in re.findall(r"^\| (`.*?`) \|", shipped, re.MULTILINE):
        for name in re.findall(r"`(\w+)`", row):
            assert (ROOT / "experiments" / name / "params.json").exists(), name
    tree = README.split("## How it is made")[1].split("\n\n")[1]
    for name in re.findall(r"\b\w+(?:\.py|/)", tree):
        assert (ROOT / name).exists() or list((ROOT / "model").glob(f"**/{name}")), name
