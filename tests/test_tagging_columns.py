"""Columns of words and tags: CoNLL-U, which columns are read, and columns that are neither."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from model.text.columns import CONLLU_COLUMNS, describe_columns, find_layout, is_running
from tests.conftest import read_json, refused, run
from tests.test_tagging_data import FEW, build, built, in_columns, lines_of, write_csv, write_pairs

TREEBANK = """\
# newdoc id = 1
# sent_id = 1
# text = Don't go to New York.
1-2	Don't	_	_	_	_	_	_	_	SpaceAfter=No
1	Do	do	AUX	VB	Mood=Imp|VerbForm=Fin	3	aux	_	_
2	n't	not	PART	RB	_	3	advmod	_	_
3	go	go	VERB	VB	VerbForm=Inf	0	root	_	_
3.1	there	there	ADV	RB	_	_	_	3:advmod	_
4	to	to	ADP	IN	_	5	case	_	_
5	New York	New York	PROPN	NNP	Number=Sing	3	obl	_	SpaceAfter=No
6	.	.	PUNCT	.	_	3	punct	_	_

# sent_id = 2
1	_	_	PUNCT	NFP	_	0	root	_	_
2	#	#	SYM	NN	_	1	punct	_	_

"""
WORDS = [["Do", "n't", "go", "to", "New\u00a0York", "."], ["_", "#"]]
TAGS = [["AUX", "PART", "VERB", "ADP", "PROPN", "PUNCT"], ["PUNCT", "SYM"]]
SENTENCES = [list(zip(words, tags, strict=True)) for words, tags in zip(WORDS, TAGS, strict=True)]


def write_treebank(folder: Path, text: str = TREEBANK, name: str = "en_ewt-ud-{}.conllu") -> Path:
    folder.mkdir()
    for split in ("train", "dev", "test"):
        (folder / name.format(split)).write_text(text, encoding="utf-8")
    return folder


def write_one(path: Path, text: str = TREEBANK, times: int = 10) -> Path:
    path.write_text(text * times, encoding="utf-8")
    return path


def tags_of(path: Path, target: Path, *flags: Any) -> list[str]:
    return [tag for _, tag in built(path, target, *flags)["train"][0]]


# --------------------------------------------------------------------------------------------- CoNLL-U


def test_a_treebank(tmp_path: Path) -> None:
    """Ranges and words that are not in the text are left out; the files beside it are no splits."""
    raw = write_treebank(tmp_path / "UD")
    for name in ("README.md", "LICENSE.txt", "en_ewt-ud-train.txt", "en_ewt-ud-dev.txt"):
        (raw / name).write_text("Don't go to New York.\n")
    result = build(raw, tmp_path / "out")
    assert result.status == 0, result.err
    assert "train: 2 sentences of up to 6 words, 8 in all, 7 different tags\n" in result.out
    assert "entities" not in result.out
    assert built(raw, tmp_path / "out", "--overwrite") == dict.fromkeys(("train", "val", "test"), SENTENCES)


@pytest.mark.parametrize("name", ["all.conllu", "all.conllup", "all.conll", "all.txt", "all.tsv"])
def test_conllu_is_recognised_by_its_content(tmp_path: Path, name: str) -> None:
    splits = built(write_one(tmp_path / name), tmp_path / "out")
    assert [len(sentences) for sentences in splits.values()] == [14, 3, 3]
    assert splits["train"] == SENTENCES * 7
    assert read_json(tmp_path / "out" / "dataset_params.json")["num_tags"] == 7


@pytest.mark.parametrize("name", ["all.conllup", "all.txt"])
def test_columns_that_a_comment_names(tmp_path: Path, name: str) -> None:
    """In any order."""
    rows = "# id = 1\nO\ta\t1\nB-per\tAnna  Smith\t2\nO\tX\t2.1\nO\tX\t2-3\nB-x\tb\t3\n\n"
    path = write_one(tmp_path / name, "# global.columns = NER FORM ID\n" + rows * 10, times=1)
    splits = built(path, tmp_path / "out", "--tag_column", "ner")
    assert splits["train"][0] == [("a", "O"), ("Anna\u00a0\u00a0Smith", "B-per"), ("b", "B-x")]
    refused(build(path, tmp_path / "new"), f"{path}: no column UPOS.", "There are NER, FORM, ID", "--tag_column")


@pytest.mark.parametrize(("column", "tag"), [("xpos", "VB"), ("XPOS", "VB"), ("5", "VB"), ("feats", "VerbForm=Inf")])
def test_another_column_of_a_treebank(tmp_path: Path, column: str, tag: str) -> None:
    """What the user names is trusted, features too."""
    assert tags_of(write_treebank(tmp_path / "UD"), tmp_path / "out", "--tag_column", column)[2] == tag


def test_another_column_of_words(tmp_path: Path) -> None:
    sentence = built(write_treebank(tmp_path / "UD"), tmp_path / "out", "--word_column", "lemma")["val"][0]
    assert sentence[1] == ("not", "PART")


def test_a_treebank_without_tags_or_text(tmp_path: Path) -> None:
    path = write_one(tmp_path / "a.conllu", "".join(f"{i}\tw{i}\tw\t_\tX\t_\t0\t_\t_\t_\n" for i in range(1, 5)) + "\n")
    for flags in ([], ["--tag_column", "upos"], ["--tag_column", "misc"]):
        message = f"{path}, line 1: all tags are _"
        refused(
            build(path, tmp_path / "out", *flags), message, "--tag_column", "2 FORM: words (w1 w2", "5 XPOS: tags (X)"
        )
    assert not (tmp_path / "out").exists()
    path = write_one(tmp_path / "b.conllu", "1\t_\t_\tNOUN\t_\t_\t0\t_\t_\t_\n\n")
    refused(build(path, tmp_path / "out", "--word_column", "form"), f"{path}, line 1: all words are _")


def test_some_words_without_a_part_of_speech(tmp_path: Path) -> None:
    path = write_one(tmp_path / "a.conllu", TREEBANK.replace("to\tto\tADP", "to\tto\t_"))
    refused(build(path, tmp_path / "out"), f"{path}, line 9: a word without a part of speech", "--tag_column")
    assert "_" in tags_of(path, tmp_path / "out", "--tag_column", "feats")  # means no features there


def test_torn_lines_of_a_treebank(tmp_path: Path) -> None:
    path = write_one(tmp_path / "a.conllu", TREEBANK.replace("3\tgo\tgo\t", "3\tgo\t"))
    refused(build(path, tmp_path / "out"), f"{path}, line 7: 9 columns, expected 10 between tabs: 3\tgo\tVERB")
    path = write_one(tmp_path / "b.conllu", "1 A a NOUN\n")
    refused(build(path, tmp_path / "out"), f"{path}, line 1: 4 columns, expected 10 between tabs: 1 A a NOUN")


# --------------------------------------------------------------------------------------- which columns


def test_columns_of_a_table(tmp_path: Path) -> None:
    """By name in any case, or by number."""
    path = write_csv(tmp_path / "a.csv", FEW * 10)
    assert tags_of(path, tmp_path / "default")[0] == "B-per"
    for i, column in enumerate(("POS", "pos", "3")):
        assert tags_of(path, tmp_path / str(i), "--tag_column", column) == ["X"] * 4
    assert built(path, tmp_path / "swapped", "--word_column", "Tag", "--tag_column", 2)["train"][0][0] == (
        "B-per",
        "Anna",
    )
    message = (
        f"{path}: no column Tga. Did you mean tag? There are Sentence #, Word, POS, Tag; --tag_column takes a name"
    )
    refused(build(path, tmp_path / "new", "--tag_column", "Tga"), message, "or a number from 1 to 4")
    refused(build(path, tmp_path / "new", "--word_column", 5), "no column 5. There are", "--word_column")
    refused(build(path, tmp_path / "new", "--word_column", "tag"), f"{path}: words and tags in the same column")


def test_a_table_without_the_usual_columns(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", FEW * 10)
    path.write_text(path.read_text().replace("Word,POS,Tag", "Token,POS,Label"))
    refused(build(path, tmp_path / "out"), f"{path}: no column Word. There are Sentence #, Token, POS, Label")
    assert built(path, tmp_path / "out", "--word_column", "token", "--tag_column", "label")["train"][:3] == FEW


def test_columns_without_names(tmp_path: Path) -> None:
    path = write_one(tmp_path / "a.conll", in_columns(FEW, middle="NN VP") + "\n")
    assert tags_of(path, tmp_path / "out", "--tag_column", 2) == ["NN"] * 4
    assert built(path, tmp_path / "other", "--word_column", 4, "--tag_column", 1)["train"][0][0] == ("B-per", "Anna")
    for column in ("0", "5", "-1", "tag"):
        message = f"{path}: no column {column}. The columns have no names; --tag_column takes a number from 1 to 4"
        refused(build(path, tmp_path / "new", f"--tag_column={column}"), message)


def test_a_single_column(tmp_path: Path) -> None:
    path = write_one(tmp_path / "a.txt", "Anna\nleft\n\n")
    refused(build(path, tmp_path / "out"), f"{path}, line 1: 1 columns, expected 2: Anna")


def test_pairs_have_no_columns(tmp_path: Path) -> None:
    raw = write_pairs(tmp_path / "raw")
    for flag in ("--word_column", "--tag_column"):
        refused(build(raw, tmp_path / "out", flag, 1), "sentences.txt and labels.txt have no columns")


# ----------------------------------------------------------------------------- columns that are neither


def test_running_numbers_are_no_words(tmp_path: Path) -> None:
    rows = "1 Anna N B-per\n2 left V O\n3 Rome N B-loc\n\n1 Rome N B-loc\n2 is V O\n\n"
    for i, first in enumerate((rows, rows.replace("1 ", "0 ").replace("2 ", "1 ").replace("3 ", "2 "))):
        path = write_one(tmp_path / f"{i}.conll", first)
        message = (
            f"{path}, line 1: the column of words holds running numbers. Choose with --word_column and --tag_column"
        )
        seem = ["1: running numbers", "2: words (Anna left Rome is)", "3: tags (N V)", "4: words (B-per O B-loc)"]
        refused(build(path, tmp_path / "new"), message, *seem)
        assert built(path, tmp_path / f"out{i}", "--word_column", 2)["train"][0][0] == ("Anna", "B-per")
        assert build(path, tmp_path / f"numbers{i}", "--word_column", 1).status == 0  # what the user names is trusted
    path = write_one(tmp_path / "dates.conll", "1 B-day\n2 B-day\n\n7 B-day\nnights O\n\n")
    assert built(path, tmp_path / "dates")["train"][0][0] == ("1", "B-day")


def test_features_are_no_tags(tmp_path: Path) -> None:
    path = write_one(tmp_path / "a.conll", "Anna N Number=Sing|Gender=Fem\nleft V _\n\n")
    seem = ["1: words (Anna left)", "3: features (Number=Sing|Gender=Fem _)"]
    refused(build(path, tmp_path / "new"), f"{path}, line 1: the column of tags holds features", "--tag_column", *seem)
    assert tags_of(path, tmp_path / "out", "--tag_column", 3) == ["Number=Sing|Gender=Fem", "_"]
    assert tags_of(path, tmp_path / "pos", "--tag_column", 2) == ["N", "V"]


def test_tags_that_are_not_set(tmp_path: Path) -> None:
    path = write_one(tmp_path / "a.conll", "Anna N _\nleft V _\n\n")
    for flags in ([], ["--tag_column", 3]):
        refused(build(path, tmp_path / "new", *flags), f"{path}, line 1: all tags are _", "3: nothing but _ (_)")
    path = write_one(tmp_path / "b.conll", "Anna NOUN\nleft _\n= SYM\n\n")  # of others, it may be a tag
    assert tags_of(path, tmp_path / "out") == ["NOUN", "_", "SYM"]


def test_what_columns_hold() -> None:
    sentences = [[["1", "A", "a", "7", "N"], ["2", "b", "b", "9", "V"], ["3", "C", "c", "7", "N"]]] * 2
    sentences.append([["1", "D", "c", "7", "N"]])
    lines = describe_columns(sentences, ["ID", "FORM"]).split("\n")[1:]
    assert [line.strip() for line in lines] == [
        "1 ID: running numbers (1 2 3)",
        "2 FORM: words (A b C D)",
        "3: words (a b c)",
        "4: numbers (7 9)",
        "5: tags (N V)",
    ]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ("1 2 3", True),
        ("0 1", True),
        ("1-2 1 2 2.1 3", True),
        ("1", True),
        ("2 3", False),
        ("1 3", False),
        ("a", False),
    ],
)
def test_running_numbers(cells: str, expected: bool) -> None:
    assert is_running(cells.split()) == expected


def test_layouts() -> None:
    ten = "\t".join("x" * 9)
    assert find_layout([f"1\t{ten}", f"2\t{ten}", "", "torn"]).names == CONLLU_COLUMNS
    assert not find_layout([f"1\t{ten}", f"1\t{ten}"]).is_conllu
    assert not find_layout([f"1\t{ten}\tx"]).is_conllu
    assert not find_layout([f"1 {ten}".replace("\t", " ")]).is_conllu  # between spaces
    assert find_layout(["a b c"], is_conllu=True).num_columns == 10
    assert find_layout(["# global.columns = ID FORM"]).names == ["ID", "FORM"]
    assert find_layout(["", "a b c"]) == (3, [], False)


def test_comments_of_a_file_with_tabs(tmp_path: Path) -> None:
    """They have no tabs, though they may have as many words as there are columns."""
    path = write_one(tmp_path / "a.conll", "# text = Anna left\nAnna\tN\t_\t_\tB-per\nleft\tV\t_\t_\tO\n\n")
    assert built(path, tmp_path / "out")["train"] == [[("Anna", "B-per"), ("left", "O")]] * 7


# ------------------------------------------------------------------------------------------ no entities


def test_nothing_but_outside(tmp_path: Path) -> None:
    """A training split without entities cannot be learnt; the others are warned of."""
    raw = write_pairs(tmp_path / "raw")
    (raw / "test" / "labels.txt").write_text("O O O O\nO O O\nO O O\n")
    result = build(raw, tmp_path / "out")
    assert result.status == 0
    assert "test: no entity in it (all words have the tag O), so its F1 will be 0" in result.out
    assert "val: no entity" not in result.out
    (raw / "train" / "labels.txt").write_text("O O O O\nO O O\nO O O\n")
    place = f"{raw / 'train' / 'labels.txt'}, line 1"
    refused(build(raw, tmp_path / "new"), f"{place}: no entity in train: all words have the tag O", "--tag_column")
    assert not (tmp_path / "new").exists()


def test_help_says_which_columns() -> None:
    result = run("build_dataset", "--task", "sequence_tagging", "--help")
    assert "--word_column" in result.out
    assert "of CoNLL-U UPOS" in " ".join(result.out.split())


def test_vocabulary_of_a_treebank(tmp_path: Path) -> None:
    built(write_treebank(tmp_path / "UD"), tmp_path / "out")
    assert set(lines_of(tmp_path / "out" / "words.txt")) == {word for words in WORDS for word in words}
