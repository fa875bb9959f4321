"""Tagged text -> data_dir: every layout, odd text, and what is refused."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from engine.loaders import BatchSampler
from model.sequence_tagging.sample import write_sentences
from model.text.columns import is_running
from tests.conftest import read_json, refused, run

Sentences = list[list[tuple[str, str]]]

FEW: Sentences = [
    [("Anna", "B-per"), ("Smith", "I-per"), ("left", "O"), ("Kent", "B-geo")],
    [("No", "O"), ("one", "O"), ("knows", "O")],
    [("Kent", "B-geo"), ("is", "O"), ("far", "O")],
]


def build(data_dir: Path, target: Path, *flags: Any) -> Any:
    return run("build_dataset", "--task", "sequence_tagging", "--data_dir", data_dir, "--output_dir", target, *flags)


def built(data_dir: Path, target: Path, *flags: Any) -> dict[str, Sentences]:
    """What was built, as pairs of words and tags."""
    result = build(data_dir, target, *flags)
    assert result.status == 0, result.err
    return {split: read_built(target / split) for split in ("train", "val", "test")}


def read_built(folder: Path) -> Sentences:
    sides = [(folder / name).read_bytes().decode().removesuffix("\n") for name in ("sentences.txt", "labels.txt")]
    lines = [[line.split(" ") for line in side.split("\n")] for side in sides]
    return [list(zip(words, tags, strict=True)) for words, tags in zip(*lines, strict=True)]


def lines_of(path: Path) -> list[str]:
    return path.read_bytes().decode().removesuffix("\n").split("\n")


def write_csv(path: Path, sentences: Sentences, encoding: str = "utf-8", number_everywhere: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Sentence #", "Word", "POS", "Tag"])
        for number, sentence in enumerate(sentences, start=1):
            for i, (word, tag) in enumerate(sentence):
                writer.writerow([f"Sentence: {number}" if number_everywhere or i == 0 else "", word, "X", tag])
    return path


def in_columns(sentences: Sentences, separator: str = " ", middle: str = "NN") -> str:
    return "\n".join(
        "".join(separator.join([word, *([middle] if middle else []), tag]) + "\n" for word, tag in sentence)
        for sentence in sentences
    )


def write_columns(
    folder: Path, names: tuple[str, str, str] = ("train.txt", "valid.txt", "test.txt"), **options: Any
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text(in_columns(FEW, **options), encoding="utf-8")
    return folder


def write_pairs(folder: Path, sentences: Sentences = FEW, val: str = "val") -> Path:
    for split in ("train", val, "test"):
        (folder / split).mkdir(parents=True)
        (folder / split / "sentences.txt").write_text("".join(" ".join(w for w, _ in s) + "\n" for s in sentences))
        (folder / split / "labels.txt").write_text("".join(" ".join(t for _, t in s) + "\n" for s in sentences))
    return folder


# --------------------------------------------------------------------------------------------- layouts


@pytest.mark.parametrize("encoding", ["windows-1252", "utf-8", "utf-8-sig"])
@pytest.mark.parametrize("number_everywhere", [False, True])
def test_kaggle_csv(tmp_path: Path, encoding: str, number_everywhere: bool) -> None:
    """Split 70/15/15 in order, the last sentence included; quotation marks, commas and accents are text."""
    sentences = [[(f"w{i}", "B-geo"), ('say "', "O"), (",", "O"), ("café", "I-art"), ("NA", "O")] for i in range(20)]
    write_csv(tmp_path / "raw" / "ner_dataset.csv", sentences, encoding, number_everywhere)
    splits = built(tmp_path / "raw", tmp_path / "out")
    assert [len(splits[split]) for split in ("train", "val", "test")] == [14, 3, 3]
    everything = [*splits["train"], *splits["val"], *splits["test"]]
    assert [s[0][0] for s in everything] == [f"w{i}" for i in range(20)]
    assert everything[-1][1:] == [('say\u00a0"', "O"), (",", "O"), ("café", "B-art"), ("NA", "O")]
    assert read_json(tmp_path / "out" / "dataset_params.json")["sizes"] == {"train": 14, "val": 3, "test": 3}


@pytest.mark.parametrize(
    ("names", "options"),
    [
        (("train.txt", "valid.txt", "test.txt"), {}),
        (("train.conll", "dev.conll", "test.conll"), {"separator": "\t"}),
        (("train", "testa", "testb"), {"middle": "NNP I-NP"}),
        (("eng.train", "eng.testa", "eng.testb"), {"separator": " ", "middle": ""}),
        (("en-train.iob", "en-val.iob", "en-test.iob"), {"separator": "\t", "middle": ""}),
    ],
)
def test_columns(tmp_path: Path, names: tuple[str, str, str], options: dict[str, Any]) -> None:
    assert built(write_columns(tmp_path / "raw", names, **options), tmp_path / "out") == {
        split: FEW for split in ("train", "val", "test")
    }


def test_columns_as_they_come(tmp_path: Path) -> None:
    """-DOCSTART-, comments, CRLF, many empty lines, no line break at the end, IOB1, and a word #."""
    text = (
        "-DOCSTART- -X- O O\r\n\r\n# id 7\r\nAnna NNP I-NP I-PER\r\nSmith NNP I-NP I-PER\r\n\r\n\r\n \r\n"
        "Rome NNP I-NP I-LOC\r\nOslo NNP I-NP B-LOC\r\n# # O O\r\n-DOCSTART- -X- O O\r\n# # O O\r\nend . O O"
    )
    write_columns(tmp_path / "raw")
    expected = [
        [("Anna", "B-PER"), ("Smith", "I-PER")],
        [("Rome", "B-LOC"), ("Oslo", "B-LOC"), ("#", "O")],
        [("#", "O"), ("end", "O")],
    ]
    for i, line_end in enumerate(("\r\n", "\r", "\n", "\r\r\n")):
        (tmp_path / "raw" / "train.txt").write_bytes(text.replace("\r\n", line_end).encode())
        assert built(tmp_path / "raw", tmp_path / f"out{i}")["train"] == expected


def test_hashtags_are_words(tmp_path: Path) -> None:
    raw = write_columns(tmp_path / "raw")
    (raw / "train.txt").write_text("#ff O\n\n#yo O\nAnna B-per\n\n# newdoc id = 3\n#begin document (a); part 0\n#x O\n")
    assert built(raw, tmp_path / "out")["train"] == [[("#ff", "O")], [("#yo", "O"), ("Anna", "B-per")], [("#x", "O")]]
    (raw / "train.txt").write_text("#ff O\n\n#win\nAnna B-per\n")
    refused(build(raw, tmp_path / "new"), "line 3: 1 columns, expected 2: #win")


@pytest.mark.parametrize("val", ["val", "dev"])
def test_cs230_layout(tmp_path: Path, val: str) -> None:
    assert built(write_pairs(tmp_path / "raw", val=val), tmp_path / "out")["val"] == FEW
    again = built(tmp_path / "out", tmp_path / "again")  # what was built can be built from
    assert again["test"] == FEW
    digests = [read_json(tmp_path / name / "dataset_params.json")["digest"] for name in ("out", "again")]
    assert digests[0] == digests[1]


def test_one_file_is_split(tmp_path: Path) -> None:
    path = tmp_path / "all.conll"
    path.write_text(in_columns(FEW * 10))
    splits = built(path, tmp_path / "out")
    assert [len(sentences) for sentences in splits.values()] == [21, 4, 5]


def test_entities_without_types(tmp_path: Path) -> None:
    (tmp_path / "all.conll").write_text("a S\nb B\nc E\nd O\ne B\nf I\n\n" * 10)
    assert [tag for _, tag in built(tmp_path / "all.conll", tmp_path / "out")["test"][0]] == "B- B- I- O B- I-".split()


def test_which_file(tmp_path: Path) -> None:
    """One file in a folder is split; files named for the splits are those, tables too; else the user says which."""
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "corpus.conll").write_text(in_columns(FEW * 10))
    assert [len(sentences) for sentences in built(raw, tmp_path / "one").values()] == [21, 4, 5]
    (raw / "other.txt").write_text(in_columns(FEW))
    refused(build(raw, tmp_path / "new"), "which of corpus.conll, other.txt?", f"--data_dir {raw / 'corpus.conll'}")
    for i, name in enumerate(("test.csv", "train.csv", "valid.csv")):
        write_csv(tmp_path / "tables" / name, FEW[: i + 1])
    splits = built(tmp_path / "tables", tmp_path / "tables_out")
    assert {split: len(sentences) for split, sentences in splits.items()} == {"test": 1, "train": 2, "val": 3}


def test_parts_of_speech_stay_as_they_are(tmp_path: Path) -> None:
    sentences = [
        [("He", "PRP"), ("said", "VBD"), ("``", "``"), ("O", "UH"), ("(", "-LRB-"), ("I", "I"), ("l", "L")]
    ] * 20
    assert built(write_csv(tmp_path / "pos.csv", sentences), tmp_path / "out")["train"] == sentences[:14]


# ------------------------------------------------------------------------------------- text and vocabulary

words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=" \t\r\n"), min_size=1, max_size=6).filter(
    lambda word: not word.startswith(("-DOCSTART-", "\ufeff")) and word != "_"
)


@given(
    st.lists(st.lists(words, min_size=1, max_size=4), min_size=1, max_size=4),
    st.sampled_from(["csv", "columns", "pairs"]),
)
def test_any_unicode_survives(tmp_path_factory: pytest.TempPathFactory, texts: list[list[str]], layout: str) -> None:
    assume(not all(map(is_running, texts)))  # which is refused
    folder = tmp_path_factory.mktemp("unicode")
    sentences = [[(word, "B-x") for word in text] for text in texts]
    if layout == "csv":
        raw = write_csv(folder / "raw.csv", sentences * 10)
    elif layout == "columns":
        raw = folder / "raw.txt"
        raw.write_bytes(in_columns(sentences * 10).encode())
    else:
        raw = folder / "raw"
        for split in ("train", "dev", "test"):
            (raw / split).mkdir(parents=True)
            lines = {"sentences": [" ".join(s) for s in texts], "labels": [" ".join("B-x" for _ in s) for s in texts]}
            for name, side in lines.items():
                (raw / split / f"{name}.txt").write_bytes("".join(line + "\n" for line in side).encode())
    splits = built(raw, folder / "out")
    everything = [*splits["train"], *splits["val"], *splits["test"]]
    assert everything == (sentences * 3 if layout == "pairs" else sentences * 10)
    in_train = [word for sentence in splits["train"] for word, _ in sentence]
    assert set(lines_of(folder / "out" / "words.txt")) == set(in_train)
    assert set(lines_of(folder / "out" / "chars.txt")) == set("".join(in_train))


def test_non_breaking_space_emoji_and_right_to_left(tmp_path: Path) -> None:
    sentences = [
        [
            ("10\u00a0000", "O"),
            ("\u00a0", "O"),
            ("👩\u200d👩", "B-x"),
            ("\u202b\u05e9\u05dc\u05d5\u05dd", "O"),
            ("\u2028", "O"),
            ("x\x85y", "O"),
        ]
    ]
    assert built(write_csv(tmp_path / "a.csv", sentences * 10, "utf-8"), tmp_path / "out")["train"] == sentences * 7


def test_vocabularies_are_those_of_train(tmp_path: Path) -> None:
    write_columns(tmp_path / "raw")
    (tmp_path / "raw" / "test.txt").write_text("Zoe NN B-art\nUNK NN O\n")
    (tmp_path / "raw" / "train.txt").write_text(in_columns([*FEW, [("UNK", "O"), ("<pad>", "O")]]))
    result = build(tmp_path / "raw", tmp_path / "out")
    assert "Tag B-art (1 in test): not in train" in result.out
    assert lines_of(tmp_path / "out" / "tags.txt") == ["O", "B-geo", "B-per", "I-per"]
    assert set(lines_of(tmp_path / "out" / "words.txt")) == {w for s in FEW for w, _ in s} | {"UNK", "<pad>"}
    assert "Z" not in lines_of(tmp_path / "out" / "chars.txt")
    assert read_json(tmp_path / "out" / "dataset_params.json")["unseen_tags"] == ["B-art"]


def test_min_counts(tmp_path: Path) -> None:
    raw = write_csv(tmp_path / "a.csv", [[("a", "B-x"), ("b", "I-x"), ("c", "B-y")], [("a", "I-x"), ("a", "I-x")]] * 10)
    result = build(raw, tmp_path / "out", "--min_count_word", 8, "--min_count_tag", 8)
    assert lines_of(tmp_path / "out" / "words.txt") == ["a"]
    assert lines_of(tmp_path / "out" / "tags.txt") == ["B-x", "I-x"]
    assert "Tag B-y (7 in train, 2 in val, 1 in test): rarer than --min_count_tag, learnt as B-x" in result.out
    for flag in ("--min_count_word", "--min_count_tag"):
        refused(build(raw, tmp_path / "none", flag, 0), flag)
        refused(build(raw, tmp_path / "none", flag, 99), "as frequent as")
    assert not (tmp_path / "none").exists()


def test_no_inside_without_a_beginning(tmp_path: Path) -> None:
    """A tag I-x could never be reached if B-x were too rare."""
    raw = write_csv(tmp_path / "a.csv", [[("a", "B-x"), ("b", "I-x"), ("b", "I-x"), ("c", "O"), ("c", "O")]] * 10)
    build(raw, tmp_path / "out", "--min_count_tag", 10)
    assert lines_of(tmp_path / "out" / "tags.txt") == ["O"]


def test_sample_is_the_same_each_time_and_new_in_test() -> None:
    splits, again = write_sentences(230), write_sentences(230)
    assert splits == again != write_sentences(1)
    assert {split: len(sentences) for split, sentences in splits.items()} == {"train": 2000, "val": 400, "test": 400}
    names = {
        split: {
            word
            for sentence in sentences
            for word, tag in zip(sentence.words, sentence.tags, strict=True)
            if tag[2:] in ("per", "loc", "org")
        }
        for split, sentences in splits.items()
    }
    assert len(names["test"] - names["train"]) > len(names["test"]) / 3
    assert names["test"] & names["train"]


# ----------------------------------------------------------------------------------------------- refused


def break_file(path: Path, old: str, new: str) -> None:
    content = path.read_bytes()
    assert old.encode() in content
    path.write_bytes(content.replace(old.encode(), new.encode("latin-1"), 1))


def test_pairs_that_do_not_match(tmp_path: Path) -> None:
    raw = write_pairs(tmp_path / "raw")
    break_file(raw / "val" / "labels.txt", "O O O", "O O")
    refused(build(raw, tmp_path / "out"), f"{raw / 'val' / 'labels.txt'}, line 2: 2 tags, but", "3 words")
    break_file(raw / "val" / "labels.txt", "O O\n", "")
    refused(build(raw, tmp_path / "out"), "sentences.txt has 3 lines, labels.txt 2")
    assert not (tmp_path / "out").exists()


def test_empty_line_in_the_middle(tmp_path: Path) -> None:
    raw = write_pairs(tmp_path / "raw")
    for name in ("sentences.txt", "labels.txt"):
        path = raw / "train" / name
        path.write_text(path.read_text() + "\n\n")  # at the end it does no harm
    assert build(raw, tmp_path / "out").status == 0
    break_file(raw / "test" / "sentences.txt", "No one knows", "")
    refused(build(raw, tmp_path / "new"), f"{raw / 'test' / 'sentences.txt'}, line 2: empty")


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_empty_files(tmp_path: Path, content: str) -> None:
    raw = write_pairs(tmp_path / "raw")
    (raw / "test" / "labels.txt").write_text(content)
    refused(build(raw, tmp_path / "out"), f"{raw / 'test' / 'labels.txt'}: empty")
    columns = write_columns(tmp_path / "columns")
    (columns / "train.txt").write_text(content)
    refused(build(columns, tmp_path / "out"), f"{columns / 'train.txt'}: empty")
    (tmp_path / "ner_dataset.csv").write_text(content)
    refused(build(tmp_path / "ner_dataset.csv", tmp_path / "out"), "ner_dataset.csv: empty")


def test_a_file_with_nothing_but_document_starts(tmp_path: Path) -> None:
    columns = write_columns(tmp_path / "columns")
    (columns / "valid.txt").write_text("-DOCSTART- O\n\n")
    refused(build(columns, tmp_path / "out"), f"{columns / 'valid.txt'}: no sentence in it")


def test_ner_csv_is_the_wrong_file(tmp_path: Path) -> None:
    path = tmp_path / "ner.csv"
    path.write_text(",lemma,next-lemma,pos,sentence_idx,shape,word,tag\n0,a,b,NN,1.0,x,A,O\n")
    refused(build(path, tmp_path / "out"), "ner.csv, line 1: no column Sentence #", "ner_dataset.csv")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("Sentence: 1,a,X,O\n,b,X\n", ["line 3: 3 cells"]),
        ('Sentence: 1,a,X,O\n,"b,X,O\n' + 5000 * ",c,X,O\n" + 200_000 * "x", ["quotation mark"]),
        ('Sentence: 1,a,X,O\n,"``",``,O\n,b,X,O\n,",X,O\nSentence: 2,d,X,O\n,",X,O\n', ["quotation mark left open"]),
        ("Sentence: 1,a,X,O\n,b,X,\n", ["line 3: no tag for b"]),
        ("Sentence: 1,a,X,O\n,b,X,O\n", ["1 sentences are too few"]),
        ("Sentence: 1,a,X,B-x\n,b,X,PER\nSentence: 2,a,X,O\n" * 10, ["line 2", "PER is neither O nor"]),
    ],
)
def test_broken_csv(tmp_path: Path, rows: str, words: list[str]) -> None:
    path = tmp_path / "raw" / "ner_dataset.csv"
    path.parent.mkdir()
    path.write_text("Sentence #,Word,POS,Tag\n" + rows)
    refused(build(path.parent, tmp_path / "out"), "ner_dataset.csv", *words)


def test_words_that_are_empty_are_left_out(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", [[("a", "O"), (" ", "O"), ("b", "B-x")]] * 10)
    result = build(path, tmp_path / "out")
    assert "a.csv: 10 lines without a word were left out, first line 3" in result.out
    assert read_built(tmp_path / "out" / "test")[0] == [("a", "O"), ("b", "B-x")]


def test_undecodable_bytes(tmp_path: Path) -> None:
    raw = write_columns(tmp_path / "raw")
    break_file(raw / "valid.txt", "No", "N\xf3")
    offset = (raw / "valid.txt").read_bytes().index(b"\xf3")
    message = f"{raw / 'valid.txt'}: cannot be decoded: byte {offset} (0xf3, line 6) is not utf-8"
    refused(build(raw, tmp_path / "out"), message, "--encoding")
    assert built(raw, tmp_path / "out", "--encoding", "latin-1")["val"][1][0] == ("Nó", "O")
    for encoding in ("klingon", "undefined", "a\0b"):
        refused(build(raw, tmp_path / "new", "--encoding", encoding), f"--encoding {encoding}: unknown")
    path = write_csv(tmp_path / "ner_dataset.csv", FEW * 5, "utf-8")
    path.write_bytes(path.read_bytes().replace(b"Anna", b"\x81nna"))
    refused(build(path, tmp_path / "new"), "byte 37 (0x81, line 2) is not utf-8, and byte 37", "is not windows-1252")


def test_splits_that_are_missing_or_double(tmp_path: Path) -> None:
    raw = write_columns(tmp_path / "raw")
    (raw / "dev.conll").write_text("a b\n")
    refused(build(raw, tmp_path / "out"), "dev.conll and valid.txt are both val")
    (raw / "dev.conll").unlink()
    (raw / "valid.txt").unlink()
    refused(build(raw, tmp_path / "out"), "no val split beside test.txt, train.txt", "testa")
    pairs = write_pairs(tmp_path / "pairs")
    (pairs / "test" / "labels.txt").unlink()
    refused(build(pairs, tmp_path / "out"), "labels.txt: no such file")
    (pairs / "test" / "sentences.txt").unlink()
    refused(build(pairs, tmp_path / "out"), "no test split")
    (tmp_path / "nothing").mkdir()
    refused(build(tmp_path / "nothing", tmp_path / "out"), "no tagged text in it", "ner_dataset.csv", "--sample")
    refused(build(tmp_path / "nowhere", tmp_path / "out"), "no such file or folder", "kaggle.com")


@pytest.mark.parametrize("line", ["torn", "a B C O"])
def test_torn_columns(tmp_path: Path, line: str) -> None:
    raw = write_columns(tmp_path / "raw")
    break_file(raw / "train.txt", "one NN O", line)
    refused(
        build(raw, tmp_path / "out"), f"{raw / 'train.txt'}, line 7: {len(line.split())} columns, expected 3: {line}"
    )


# --------------------------------------------------------------------------------------------- batches


@given(st.lists(st.integers(1, 60), min_size=1, max_size=300), st.integers(1, 40), st.booleans(), st.integers(0, 3))
def test_like_lengths_share_a_batch(lengths: list[int], batch_size: int, shuffle: bool, epoch: int) -> None:
    """Every sentence once, as without lengths; the order a function of seed and epoch."""
    array = np.array(lengths)
    sampler, again = (BatchSampler(len(array), batch_size, shuffle, 7, array) for _ in range(2))
    sampler.set_epoch(epoch)
    again.set_epoch(epoch)
    batches = [batch.indices.tolist() for batch in sampler]
    assert batches == [batch.indices.tolist() for batch in again]
    assert sorted(i for batch in batches for i in batch) == list(range(len(array)))
    sizes = sorted(map(len, batches), reverse=True)
    assert sizes == sorted((len(batch.indices) for batch in BatchSampler(len(array), batch_size)), reverse=True)
    if not shuffle:
        assert [lengths[i] for batch in batches for i in batch] == sorted(lengths, reverse=True)


def test_little_is_padding_and_epochs_differ() -> None:
    """Lengths spread as in newspapers, mean 22 and deviation 8: less than 5 % of the computed positions."""
    lengths = np.random.default_rng(0).normal(22, 8, 5000).clip(2, 70).astype(int)
    sampler = BatchSampler(len(lengths), 32, True, 230, lengths)
    together = []
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        batches = [batch.indices for batch in sampler]
        computed = sum(len(batch) * lengths[batch].max() for batch in batches)
        assert lengths.sum() / computed > 0.95
        means = [lengths[batch].mean() for batch in batches]
        assert abs(np.corrcoef(means, range(len(means)))[0, 1]) < 0.2  # not from short to long
        together.append({frozenset(batch.tolist()) for batch in batches})
    assert not together[0] & together[1]
