"""export.py: what it writes, what it refuses; files that are damaged or not its own. tests/test_every_task.py covers
the answers of each task."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import types
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from engine import exporting
from engine.exporting import CHECKED, compare, export_onnx, free_axes, largest_difference, without_bags
from engine.onnx_network import INSTALL, sealed
from engine.predicting import About, Example
from engine.texts import TextProcessing
from engine.torch_network import Restored
from predict import load_predictor
from tests.conftest import last_checkpoint, read_json, refused, run, train_ok, write_params
from utils import UserError


def export(model_dir: Path, *flags: Any) -> str:
    result = run("export", "--model_dir", model_dir, *flags)
    assert result.status == 0, result.err
    return result.out


@pytest.fixture
def model_dir(trained: Path, tmp_path: Path) -> Path:
    """A trained experiment that a test may change."""
    return Path(shutil.copytree(trained, tmp_path / "experiment"))


@pytest.fixture(scope="session")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX file, not to be changed."""
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    export(trained, "--output", path)
    return path


def metadata(path: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def with_metadata(path: Path, target: Path, **changed: str | None) -> Path:
    """The ONNX file with other metadata; None leaves an entry out. It has a digest, as if export.py had written it."""
    model = onnx.load(path)
    values = {**metadata(path), **changed}
    del values["sha256"]
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {name: value for name, value in values.items() if value is not None})
    target.write_bytes(sealed(model.SerializeToString()))
    return target


# ------------------------------------------------------------------------------------ what is written


def test_the_onnx_file_is_enough(trained: Path, exported: Path) -> None:
    model, values = onnx.load(exported), metadata(exported)
    onnx.checker.check_model(model, full_check=True)
    assert [entry.version for entry in model.opset_import] == [17]
    assert values["task"] == "image_classification"
    checkpoint = last_checkpoint(trained, "best")
    assert json.loads(values["params"]) == checkpoint["params"]
    assert json.loads(values["data"]) == checkpoint["data"]
    about = json.loads(values["about"])
    assert about["epoch"] == checkpoint["epoch"]
    assert about["metrics"] == checkpoint["history"][about["epoch"] - 1]["val"]
    assert "squeezed to a square" in values["processing"]
    ((given,), (answer,)) = model.graph.input, model.graph.output
    assert "RGB pixels" in given.doc_string
    assert "softmax" in answer.doc_string
    sizes = [axis.dim_param or axis.dim_value for axis in given.type.tensor_type.shape.dim]
    assert sizes == ["batch_size", 3, 16, 16]
    assert given.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert answer.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_by_default_it_lies_in_the_experiment(model_dir: Path) -> None:
    out = export(model_dir)
    content = (model_dir / "model.onnx").read_bytes()
    assert f"{model_dir / 'model.onnx'} ({len(content) / 1e6:.2f} MB)" in out
    assert "onnxruntime" in out
    (model_dir / "model.onnx").write_bytes(sealed(b"an older one"))
    export(model_dir)
    assert (model_dir / "model.onnx").read_bytes() == content
    assert not [path for path in model_dir.iterdir() if path.name.endswith(".partial")]


def test_exporting_warns_of_nothing_that_a_user_cannot_change(trained: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert run("export", "--model_dir", trained, "--output", tmp_path / "model.onnx").err == ""
    assert [str(warning.message) for warning in caught] == []


def test_chosen_weights_are_exported(trained: Path, tmp_path: Path) -> None:
    weights = trained / "last_weights" / "epoch_0001.pt"
    export(trained, "--weights", weights, "--output", tmp_path / "model.onnx")
    assert load_predictor(tmp_path / "model.onnx").about.epoch == 1


def test_slim_weights(trained: Path, model_dir: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.sha256"  # of a file that does not concern us
    other.touch()
    path = tmp_path / "model.pt"
    export(trained, "--format", "torch", "--output", path)
    whole, slim = last_checkpoint(trained, "best"), torch.load(path, weights_only=True)
    assert slim.keys() == {"state_dict", "params", "data", "epoch", "trained", "metrics", "exported"}
    assert all(torch.equal(slim["state_dict"][name], value) for name, value in whole["state_dict"].items())
    assert path.stat().st_size < (trained / "best_weights" / f"epoch_{whole['epoch']:04d}.pt").stat().st_size / 2
    digest, name = (tmp_path / "model.sha256").read_text(encoding="utf-8").split()
    assert (digest, name) == (hashlib.sha256(path.read_bytes()).hexdigest(), "model.pt")
    assert other.exists()
    export(trained, "--format", "torch", "--output", path)  # again

    assert run("evaluate", "--model_dir", model_dir).status == 0
    expected = read_json(model_dir / "metrics_test_best_weights.json")
    assert run("evaluate", "--model_dir", model_dir, "--restore_file", path).status == 0
    (metrics,) = set(model_dir.glob("metrics_test_*.json")) - {model_dir / "metrics_test_best_weights.json"}
    assert read_json(metrics) == expected


def test_slim_weights_begin_a_run(trained: Path, shared_data: Path, tmp_path: Path) -> None:
    export(trained, "--format", "torch", "--output", tmp_path / "model.pt")
    model_dir = write_params(tmp_path / "next", num_epochs=1)
    train_ok(model_dir, "--data_dir", shared_data, "--restore_file", tmp_path / "model.pt")


# ---------------------------------------------------------------------------------- what is refused


def test_no_weights_yet(experiment: Callable[..., Path], tmp_path: Path) -> None:
    refused(run("export", "--model_dir", experiment()), "no best weights", "Train first: python train.py")
    refused(run("export", "--model_dir", tmp_path / "nowhere"), "nowhere: no such experiment")
    refused(run("export", "--model_dir", experiment("b"), "--weights", tmp_path / "no.pt"), "no.pt: no such")


@pytest.mark.parametrize("format", ["onnx", "torch"])
def test_outputs_that_cannot_be_written(trained: Path, tmp_path: Path, format: str) -> None:
    def attempt(output: Path) -> Any:
        return run("export", "--model_dir", trained, "--format", format, "--output", output)

    suffix = {"onnx": ".onnx", "torch": ".pt"}[format]
    refused(attempt(tmp_path), "a folder", f"model{suffix}")
    refused(attempt(tmp_path / "model.txt"), f"ends in {suffix}")
    refused(attempt(tmp_path / "no" / f"model{suffix}"), f"there is no folder {tmp_path / 'no'}")
    if sys.platform == "linux":
        refused(attempt(Path(f"/proc/model{suffix}")), "/proc: cannot be written to", "another folder")
    mine = tmp_path / f"mine{suffix}"
    mine.write_bytes(b"something else")
    refused(attempt(mine), "mine", "export.py did not write it")
    assert mine.read_bytes() == b"something else"


def test_a_checkpoint_of_training_is_not_replaced(model_dir: Path) -> None:
    (best,) = (model_dir / "best_weights").glob("*.pt")
    refused(run("export", "--model_dir", model_dir, "--format", "torch", "--output", best), "did not write it")


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_packages_that_are_not_installed(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # importing it raises ImportError
    output = tmp_path / "model.onnx"
    refused(run("export", "--model_dir", trained, "--output", output), f"{package} is not installed", INSTALL)
    assert run("export", "--model_dir", trained, "--output", tmp_path / "model.pt", "--format", "torch").status == 0


def change_checkpoint(model_dir: Path, change: Callable[[dict[str, Any]], None]) -> None:
    (path,) = (model_dir / "best_weights").glob("*.pt")
    checkpoint = torch.load(path, weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, path)
    path.with_suffix(".sha256").unlink()


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], Any], list[str]]] = {
    "unknown parameter": (lambda c: c["params"].update(new_trick=1), ["another version", "new_trick"]),
    "no params": (lambda c: c.pop("params"), ["weights alone"]),
    "no data": (lambda c: c.pop("data"), ["weights alone"]),
    "other task": (lambda c: c["params"].update(task="chess"), ["weights of the task chess, which is not here"]),
    "other network": (lambda c: c["params"].update(num_channels=5), ["another architecture", "body.conv1.weight"]),
    "later export": (lambda c: c.update(exported=99), ["another version of export.py"]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_weights_of_another_version(model_dir: Path, name: str) -> None:
    change, words = CHANGES[name]
    change_checkpoint(model_dir, change)
    refused(run("export", "--model_dir", model_dir), ".pt: ", *words)
    assert not (model_dir / "model.onnx").exists()


# ---------------------------------------------------------------------------------- reading ONNX files


def test_files_that_are_not_ours(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.onnx"
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "ab"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["a"], ["b"])], "other", value[:1], value[1:])
    opsets = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    with pytest.raises(UserError, match=r"other\.onnx: an ONNX file, but not one that export\.py wrote"):
        load_predictor(path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match="it is empty"):
        load_predictor(path)
    path.write_bytes(b"not ONNX")
    with pytest.raises(UserError, match="cannot be read as an ONNX file"):
        load_predictor(path)
    with pytest.raises(UserError, match="no such file"):
        load_predictor(tmp_path / "nowhere.onnx")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(UserError, match=r"cannot be read \("):
        load_predictor(tmp_path / "folder.onnx")
    with pytest.raises(UserError, match="runs on the CPU"):
        load_predictor(exported, "cuda")


def test_any_damage_is_noticed(exported: Path, tmp_path: Path) -> None:
    content, path, rng = exported.read_bytes(), tmp_path / "model.onnx", np.random.default_rng(0)
    for place in rng.integers(0, len(content) - 100, 50).tolist():
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(UserError, match=r"model\.onnx: damaged"):
            load_predictor(path)
    for size in [*rng.integers(0, len(content) - 100, 50).tolist(), 1, 10, len(content) - 77]:
        path.write_bytes(content[:size])
        with pytest.raises(UserError, match=r"model\.onnx: (cannot be read|damaged|an ONNX file, but not|written by)"):
            load_predictor(path)


def test_a_file_that_another_program_changed(exported: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Such as one that makes integers of the weights: it is used, and that is said."""
    path = with_metadata(exported, tmp_path / "model.onnx", note="smaller")
    path.write_bytes(path.read_bytes()[:-76])
    load_predictor(path)
    assert "changed by another program" in caplog.text


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"version": "0"}, "written by another version of export.py"),
        ({"version": None}, "written by another version of export.py"),
        ({"data": None}, "its metadata is not what"),
        ({"about": '{"weather": "fine"}'}, "its metadata is not what"),
        ({"params": "{"}, "its metadata is not what"),
        ({"params": "[1]"}, "its metadata is not what"),
        ({"params": '{"new_trick": 1}'}, "new_trick"),
        ({"data": "{}"}, "weights of another version: its data"),
        ({"task": "chess"}, "weights of the task chess, which is not here"),
    ],
)
def test_metadata_of_another_version(exported: Path, tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    path = with_metadata(exported, tmp_path / "model.onnx", **changed)
    with pytest.raises(UserError, match=message) as caught:
        load_predictor(path)
    assert str(path) in str(caught.value)


def test_reading_needs_onnxruntime(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=f"onnxruntime is not installed.*{INSTALL}"):
        load_predictor(exported)


@pytest.mark.parametrize(("value", "count"), [("3", 3), ("2,1", 2), ("", 0), ("many", 0)])
def test_threads_are_those_of_torch(monkeypatch: pytest.MonkeyPatch, value: str, count: int) -> None:
    from engine.onnx_network import num_threads

    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", value)
    assert num_threads() == count


# ------------------------------------------------------------------- graphs that compute something else


class Letters(TextProcessing):
    """Texts -> batch_size x length lengths of words; behind the end of a text 0."""

    inputs: ClassVar = {"inputs": "batch_size x length: letters of each word"}
    outputs: ClassVar = {"outputs": "batch_size x 1"}

    def preprocess(self, raw: Any) -> Example:
        return Example(raw, [len(word) for word in raw.split()])

    def collate(self, contents: Sequence[list[int]]) -> np.ndarray:
        longest = max(map(len, contents))
        return np.array([[*row, *[0] * (longest - len(row))] for row in contents])


def sums_steps(x: Tensor) -> Tensor:
    total = torch.zeros(x.shape[0], 1)
    for step in range(x.shape[1]):
        total = total + x[:, step, None]
    return total


def divides_by_a_number(x: Tensor) -> Tensor:
    return x.sum(dim=1, keepdim=True) / float(x.shape[1])


def knows_its_batch(x: Tensor) -> Tensor:
    return x.reshape(int(x.shape[0]), -1, 1).sum(dim=1)


def adds_noise(x: Tensor) -> Tensor:
    return x.sum(dim=1, keepdim=True).float() + 10 * torch.rand(x.shape[0], 1)


def counts_the_steps(x: Tensor) -> Tensor:
    return x.sum(dim=1, keepdim=True) * int(x.shape[1])  # an integer


def sums(x: Tensor) -> Tensor:
    return x.sum(dim=1, keepdim=True).float()


def toy(forward: Callable[[Tensor], Tensor]) -> Restored:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return forward(x)

    task: Any = types.SimpleNamespace(name="toy", Processing=Letters, optional=lambda part: None)
    return Restored(task, None, Net(), About("toy.pt"), {"params": {}, "data": {}})


def test_a_right_graph_is_written(tmp_path: Path) -> None:
    report = export_onnx(toy(sums), tmp_path / "model.onnx")
    assert report.difference < 1e-6
    assert report.milliseconds.keys() == {1, 32}
    (given,) = onnx.load(tmp_path / "model.onnx").graph.input
    assert [axis.dim_param for axis in given.type.tensor_type.shape.dim] == ["batch_size", "length"]


@pytest.mark.parametrize("wrong", [sums_steps, divides_by_a_number, knows_its_batch, adds_noise, counts_the_steps])
@pytest.mark.filterwarnings("ignore:Converting a tensor to a Python")
def test_a_wrong_graph_is_not_written(tmp_path: Path, wrong: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(UserError, match=r"The exported graph (is wrong|fails) in a batch of .* Usual reasons are"):
        export_onnx(toy(wrong), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_a_network_that_cannot_be_exported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"The network of toy cannot be exported to ONNX: .*lgamma"):
        export_onnx(toy(lambda x: torch.special.polygamma(2, x.float().lgamma())), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_names_of_free_axes() -> None:
    first, second = ({"words": np.zeros((n, 3, n + 1)), "lengths": np.zeros(n)} for n in (2, 4))
    shapes = {"words": "batch_size x 3 x length: what they are: words", "lengths": "batch_size"}
    assert free_axes(first, second, shapes) == {"words": {0: "batch_size", 2: "length"}, "lengths": {0: "batch_size"}}
    assert free_axes(first, second, {}) == {"words": {0: "words_0", 2: "words_2"}, "lengths": {0: "lengths_0"}}


def test_ties_of_integers() -> None:
    """They may differ in a batch, if they do not in another one."""
    seen: list[int] = []

    def network(inputs: Any) -> dict[str, np.ndarray]:
        return {"tags": np.zeros(len(inputs), np.int64)}

    def graph(inputs: Any) -> dict[str, np.ndarray]:
        seen.append(len(inputs))
        return {"tags": np.full(len(inputs), int(len(seen) <= ties))}

    ties = 2
    assert compare(network, graph, Letters(None), 3, 4) == 0
    assert len(seen) == 3
    seen.clear()
    ties = 3
    with pytest.raises(UserError, match=r"wrong in a batch of 3 \(length 4\): tags not equal"):
        compare(network, graph, Letters(None), 3, 4)


def test_other_sizes_are_checked_than_were_traced() -> None:
    assert not {count for count, _ in CHECKED} & {count for count, _ in exporting.TRACED}
    assert not {length for _, length in CHECKED} & {length for _, length in exporting.TRACED}


def test_differences() -> None:
    inf, nan = np.inf, np.nan
    assert largest_difference(np.array([1.0, inf, -inf, nan]), np.array([1.0, inf, -inf, nan])) == 0
    assert largest_difference(np.array([0.5, 1000.0]), np.array([0.6, 1001.0])) == pytest.approx(0.1)
    assert largest_difference(np.array([1000.0]), np.array([1001.0])) == pytest.approx(0.001)
    assert not largest_difference(np.array([1.0, nan]), np.array([1.0, 1.0])) <= 1
    assert not largest_difference(np.array([inf]), np.array([1.0])) <= 1
    assert largest_difference(np.zeros((0, 3)), np.zeros((0, 3))) == 0


def test_bags_of_embeddings_are_replaced() -> None:
    net = nn.Sequential(nn.EmbeddingBag(7, 3, mode="sum"))
    indices = torch.randint(0, 7, (5, 2))
    replaced = without_bags(net)
    assert not isinstance(replaced[0], nn.EmbeddingBag)
    assert torch.allclose(replaced(indices), net(indices))
    flat, offsets = torch.arange(6), torch.tensor([0, 4])
    assert torch.equal(replaced[0](flat, offsets), net[0](flat, offsets))
    assert isinstance(net[0], nn.EmbeddingBag)


@pytest.mark.parametrize("char_features", ["lstm", "cnn"])
def test_a_tagger_with_everything(tagger: Callable[..., Path], tmp_path: Path, char_features: str) -> None:
    """Characters, both directions, two layers, and the CRF, whose loops become loops of the graph."""
    params = {
        "crf": True,
        "bidirectional": True,
        "num_layers": 2,
        "char_features": char_features,
        "precision": "float32",
    }
    model_dir = tagger("everything", num_epochs=1, **params)
    train_ok(model_dir)
    result = run("export", "--model_dir", model_dir)
    assert result.status == 0, result.err
    sentences = ["Kila", "Kila Welski left Washington .", "", "of " * 60]
    theirs, ours = (load_predictor(place)(sentences) for place in (model_dir / "model.onnx", model_dir))
    assert [record.get("prediction") for record in theirs] == [record.get("prediction") for record in ours]
    for one, other in zip(theirs, ours, strict=True):
        if "error" not in one:
            assert one["probability"] == pytest.approx(other["probability"], abs=1e-4)
            assert one["tag_probabilities"] == pytest.approx(other["tag_probabilities"], abs=2e-4)
