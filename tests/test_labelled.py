"""Labelled texts in every layout, odd files, and what is refused."""

from __future__ import annotations

import argparse
import csv
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model.text import files, tables
from model.text.labelled import Labelled, add_arguments, read_labelled
from model.text.trees import parse_tree
from tests.conftest import NOT_UTF8
from utils import UserError

ROWS = [("A fine, fine film.", "good"), ('He said "no".', "bad"), ("Two\nlines; really.", "good"), ("Bad.", "bad")]
PAIRS = [("A fine film.", "good"), ("Not a fine one.", "bad"), ("Fine.", "good"), ("Bad.", "bad")]
TREES = "(3 (2 A) (4 (3 fine) (2 film)))\n(2 (2 So) (2 so))\n(0 (1 Bad) (2 film))\n"


@pytest.fixture(autouse=True)
def _own_field_size_limit() -> Iterator[None]:
    """The reader sets a limit that holds for the whole process."""
    limit = csv.field_size_limit()
    yield
    csv.field_size_limit(limit)


def read(source: Path, *flags: str) -> list[Labelled]:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return list(read_labelled(source, parser.parse_args(flags)))


def pairs(source: Path, *flags: str) -> list[tuple[Any, str]]:
    return [(text.content, text.label) for text in read(source, *flags)]


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refuses(source: Path, *words: str, flags: tuple[str, ...] = ()) -> None:
    with pytest.raises(UserError) as error:
        read(source, *flags)
    for word in words:
        assert word in str(error.value), error.value


def table(rows: list[tuple[str, str]], delimiter: str = ",", end: str = "\n") -> str:
    def quoted(cell: str) -> str:
        return '"' + cell.replace('"', '""') + '"' if any(c in cell for c in f'{delimiter}"\n') else cell

    return "".join(delimiter.join(map(quoted, row)) + end for row in rows)


# ---------------------------------------------------------------------------------------------- tables


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("header", [[("review", "sentiment")], [("Satz", "Ton")], []])
@pytest.mark.parametrize("label_first", [False, True])
def test_table(tmp_path: Path, delimiter: str, header: list[tuple[str, str]], label_first: bool) -> None:
    """Any delimiter, a header in English, in German or none, either order; a text may hold quotes and line breaks."""
    rows = [row[::-1] if label_first else row for row in header + ROWS * 2]
    path = write(tmp_path / "data.csv", table(rows, delimiter))
    assert pairs(path) == ROWS * 2


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_line_ends_and_byte_order_mark(tmp_path: Path, end: str, start: bytes) -> None:
    for name, content in {
        "a.csv": table([("text", "label"), *PAIRS], end=end),
        "b.txt": table(PAIRS, "\t", end),
        "c.txt": "".join(f"__label__{label} {text}{end}" for text, label in PAIRS),
    }.items():
        path = write(tmp_path / name, start + content.removesuffix(end).encode())
        assert pairs(path) == PAIRS
        assert str(read(path)[-1].place) == f"{path}, line {5 if name == 'a.csv' else 4}"


def test_places_of_rows(tmp_path: Path) -> None:
    """A row is named by its first line. Empty lines are passed over."""
    path = write(tmp_path / "data.csv", "text,label\n\n" + table(ROWS) + "\n")
    assert [text.place.line for text in read(path)] == [3, 4, 5, 7]


def test_names_without_a_header(tmp_path: Path) -> None:
    """Sorted by label, texts of one word, quoted, and the first class alone fills the lines that are looked at."""
    rows = "".join(f'"Name{i}","{"Czech" if i < 1500 else "Polish"}"\n' for i in range(1600))
    texts = pairs(write(tmp_path / "names.csv", rows))
    assert texts[0] == ("Name0", "Czech")
    assert texts[-1] == ("Name1599", "Polish")
    assert len(texts) == 1600


def test_columns_by_flag_and_by_name(tmp_path: Path) -> None:
    rows = "".join(f"{i},t{i},text number {i},{'ab'[i % 2]}\n" for i in range(4))
    expected = [(f"text number {i}", "ab"[i % 2]) for i in range(4)]
    path = write(tmp_path / "data.csv", "id,title,text,class\n" + rows)
    assert pairs(path) == expected
    assert pairs(path, "--text_column", "3", "--label_column", "class") == expected
    assert pairs(path, "--text_column", "title")[1] == ("t1", "b")
    path = write(tmp_path / "bare.csv", rows)
    refuses(path, "bare.csv, line 1", "1 0, 2 t0, 3 text number 0, 4 a", "--text_column and --label_column")
    assert pairs(path, "--text_column", "3", "--label_column", "4") == expected
    refuses(
        path, "no column mood", "There are", "text number 0", "--label_column takes", flags=("--label_column", "mood")
    )
    refuses(path, "no column 5", "number from 1 to 4", flags=("--label_column", "5", "--text_column", "1"))
    refuses(path, "cannot be both", flags=("--text_column", "2", "--label_column", "2"))
    refuses(
        path,
        "line 1",
        "4 different labels in 4 rows",
        "t0",
        "--label_column",
        flags=("--text_column", "3", "--label_column", "2"),
    )


def test_a_first_row_that_looks_like_a_header(tmp_path: Path) -> None:
    """Its label occurs again, or a cell is a number, or its text is long, or the flag says that it is a row."""
    assert pairs(write(tmp_path / "a.csv", "text,noun\nrun,verb\nhouse,noun\ngo,verb\n"))[0] == ("text", "noun")
    assert (
        pairs(write(tmp_path / "b.csv", "1984,book\nCasablanca,film\nVertigo,film\nUp,film\nEmma,novel\n"))[0][0]
        == "1984"
    )
    long = "A text of many words,rare\n" + table(PAIRS)
    assert len(pairs(write(tmp_path / "c.csv", long))) == 5
    short = write(tmp_path / "d.csv", "A text,rare\n" + table(PAIRS))
    assert len(pairs(short)) == 4
    assert len(pairs(short, "--no_header")) == 5


def test_unclear_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "data.csv", "one,two\nthree,four\nfive,six\n")
    refuses(path, "data.csv, line 1", "which column is the text", "1 one, 2 two")


def test_quotation_marks_between_tabs(tmp_path: Path) -> None:
    """They enclose cells if most lines have such; else they are part of the text. A backslash may stand before one."""
    literal = 'bad\t"Hey! said she\ngood\tFine" and "so on\nbad\tNo.\ngood\t"Well"\n'
    assert pairs(write(tmp_path / "data.txt", literal))[0][0] == '"Hey! said she'
    quoted = '"A ""fine"" one"\tgood\n"Bad"\tbad\n"Fine"\tgood\n"No"\tbad\n'
    assert pairs(write(tmp_path / "data.tsv", quoted))[:2] == [('A "fine" one', "good"), ("Bad", "bad")]
    refuses(write(tmp_path / "data.tsv", quoted + '"No\tbad\n'), "data.tsv, line 5", "quotation mark")
    escaped = 'id\tsentiment\treview\n"1"\t1\t"A \\"fine\\" one, it is"\n"2"\t0\t"Bad"\n"3"\t1\t"Fine"\n'
    assert pairs(write(tmp_path / "data.tsv", escaped))[0] == ('A "fine" one, it is', "1")


def test_files_of_splits(tmp_path: Path) -> None:
    for name in ("imdb_test.csv", "imdb_train.csv", "imdb_dev.csv"):
        write(tmp_path / name, "text,label\n" + table([(f"{name} {text}", label) for text, label in PAIRS]))
    write(tmp_path / "README.txt", "Notes")
    texts = read(tmp_path)
    assert [text.split for text in texts[::4]] == ["train", "val", "test"]
    assert texts[0].content == "imdb_train.csv A fine film."
    write(tmp_path / "imdb_test.csv", table(PAIRS))
    refuses(tmp_path, "imdb_test.csv, line 1", "no text or no label in its header", "other files have: text, label")
    write(tmp_path / "imdb_test.csv", "a;b;c\n")
    refuses(tmp_path, "imdb_test.csv, line 1: no text or no label in its header")


def test_one_file_in_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "reviews.csv", table(PAIRS))
    assert {text.split for text in read(tmp_path)} == {None}
    write(tmp_path / "others.csv", table(PAIRS))
    refuses(tmp_path, "which of others.csv, reviews.csv?", "--data_dir")


def test_a_very_long_text(tmp_path: Path) -> None:
    """The csv module's own limit is 131,072 characters."""
    path = write(tmp_path / "data.csv", "text,label\n" + "word " * 100_000 + ",good\nBad,bad\n")
    assert len(read(path)[0].content) == 499_999


def test_late_mistakes_in_a_table(tmp_path: Path) -> None:
    """Below the lines that are looked at first."""
    rows = "text,label\n" + table(PAIRS) * 500
    refuses(write(tmp_path / "a.csv", rows + "a,b,c\n"), "a.csv, line 2002: 3 cells, expected 2")
    refuses(write(tmp_path / "b.csv", rows + '"open,bad\n' + rows), "b.csv, line 2002", "quotation mark")
    refuses(write(tmp_path / "c.csv", rows + "text,\n"), "c.csv, line 2002: no label")
    refuses(
        write(tmp_path / "d.csv", rows + " ,bad\n" * 12), "12 empty texts", "d.csv, line 2002\n", "d.csv, line 2011"
    )


def test_early_mistakes_in_a_table(tmp_path: Path) -> None:
    refuses(write(tmp_path / "a.csv", "text,label\na,b\nc\n"), "a.csv, line 3: 1 cells, expected 2")
    refuses(write(tmp_path / "b.csv", 'text,label\na,b\n"c,d\ne,f\n'), "b.csv, line 3", "quotation mark")
    refuses(write(tmp_path / "c.csv", "text\nword\n"), "c.csv: no text with its label in the first line: text")
    refuses(write(tmp_path / "d.csv", "text,label\n"), "only a header")
    refuses(write(tmp_path / "e.csv", "\n \n"), "e.csv: empty")
    refuses(write(tmp_path / "f.csv", "text,label\na,\nb,x\n"), "f.csv, line 2: no label")


def test_a_test_file_without_labels(tmp_path: Path) -> None:
    """As Kaggle hands it out."""
    write(tmp_path / "train.csv", "id,text,label\n1,a b,x\n2,b,y\n3,c,x\n")
    write(tmp_path / "test.csv", "id,text\n4,a\n")
    refuses(
        tmp_path,
        "test.csv, line 1: no label in its header, which the other files have: id, text, label",
        "for predict.py",
    )


# ------------------------------------------------------------------------------------ folders of classes


def write_reviews(folder: Path) -> Path:
    for split in ("train", "test"):
        for label in ("neg", "pos"):
            for i in (10, 2, 1):
                write(folder / split / label / f"{i}_7.txt", f"{split} {label} {i}<br />\nTwo lines.\n")
        write(folder / split / "urls_pos.txt", "http://")
    write(folder / "train" / "unsup" / "0_0.txt", "No label.")
    write(folder / "README", "About")
    write(folder / "imdb.vocab", "the")
    return folder


def test_folders_of_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Sorted by name. Files beside the folders, and train/unsup, are no texts."""
    texts = read(write_reviews(tmp_path))
    assert len(texts) == 12
    assert texts[0].content == "train neg 10<br />\nTwo lines."
    assert [text.label for text in texts] == (["neg"] * 3 + ["pos"] * 3) * 2
    assert [text.split for text in texts] == ["train"] * 6 + ["test"] * 6
    assert [str(text.place) for text in texts[:3]] == [str(tmp_path / f"train/neg/{i}_7.txt") for i in (10, 1, 2)]
    (tmp_path / "train" / "mixed").mkdir()
    write(tmp_path / "train" / "pos" / "notes.html", "x")
    write(tmp_path / "more" / "1.pdf", "x")
    with caplog.at_level(logging.WARNING):
        assert len(read(tmp_path)) == 12
    for message in ("no classes: mixed", "no .txt: pos/notes.html", "no split: more"):
        assert message in caplog.text


def test_folders_of_classes_without_splits(tmp_path: Path) -> None:
    texts = read(write_reviews(tmp_path) / "train")
    assert [text.split for text in texts] == [None] * 6
    assert {text.label for text in texts} == {"neg", "pos"}


def test_folders_of_splits_without_classes(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write(tmp_path / split / "1.txt", "A text.")
    refuses(tmp_path, "no folder for each class in test, train")


def test_bad_files_in_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_reviews(tmp_path)
    bad = write(tmp_path / "test" / "pos" / "9.txt", b"first\nse\xc3\xa9 caf\xe9")
    refuses(tmp_path, f"{bad}, line 2: byte 0xe9, number 9 of the line, is not utf-8", "--encoding")
    assert pairs(tmp_path, "--encoding", "windows-1252")[-1][0].endswith("café")
    write(bad, " \n")
    refuses(tmp_path, "1 empty texts", str(bad))
    write(bad, "one\ntwo\0")
    refuses(tmp_path, f"{bad}, line 2: a NUL byte")
    monkeypatch.setattr(files, "LONGEST_LINE", 50)
    write(bad, "short\n" * 10)
    refuses(tmp_path, f"{bad}: more than 50 characters")
    write(tmp_path / "train.csv", table(PAIRS))
    refuses(tmp_path, "folders of texts beside files", "test, train, train.csv")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere all names are Unicode")
def test_a_class_that_is_not_unicode(tmp_path: Path) -> None:
    write(tmp_path / NOT_UTF8 / "1.txt", "text")
    refuses(tmp_path, NOT_UTF8, "not Unicode")


# ------------------------------------------------------------------------------------------------ trees


def test_trees(tmp_path: Path) -> None:
    for name in ("train.txt", "dev.txt", "test.txt"):
        write(tmp_path / name, TREES)
    texts = read(tmp_path)
    assert [text.split for text in texts] == ["train", "train", "val", "val", "test", "test"]
    assert [(text.content, text.label) for text in texts[:2]] == [
        (["A", "fine", "film"], "positive"),
        (["Bad", "film"], "negative"),
    ]
    assert str(texts[1].place) == f"{tmp_path / 'train.txt'}, line 3"
    labels = [text.label for text in read(tmp_path / "dev.txt", "--labels", "five")]
    assert labels == ["positive", "neutral", "very negative"]


def test_neutral_trees_alone(tmp_path: Path) -> None:
    source = write(tmp_path / "trees.txt", "(2 (2 So) (2 so))\n")
    refuses(source, "neutral trees (--labels five keeps these)")
    assert pairs(source, "--labels", "five") == [(["So", "so"], "neutral")]


def test_phrases(tmp_path: Path) -> None:
    """Of train, each sentence and then what it is made of; of val, sentences. A neutral sentence may have parts."""
    write(tmp_path / "train.txt", TREES + "(2 (3 fine) (2 .))\n")
    write(tmp_path / "dev.txt", TREES)
    found = [(text.split, " ".join(text.content), text.label, text.is_part) for text in read(tmp_path, "--phrases")]
    assert found == [
        ("train", "A fine film", "positive", False),
        ("train", "fine", "positive", True),
        ("train", "fine film", "positive", True),
        ("train", "Bad film", "negative", False),
        ("train", "Bad", "negative", True),
        ("train", "fine", "positive", True),
        ("val", "A fine film", "positive", False),
        ("val", "Bad film", "negative", False),
    ]
    texts = read(tmp_path / "train.txt", "--phrases", "--labels", "five")
    neutral = [" ".join(text.content) for text in texts if text.label == "neutral"]
    assert neutral == ["A", "film", "So so", "So", "so", "film", "fine .", "."]
    refuses(write(tmp_path / "table.csv", "a b,x\nc d,y\n"), "no trees but a table", flags=("--phrases",))


def test_words_of_the_penn_treebank(tmp_path: Path) -> None:
    words = ["-LRB-", "-RRB-", "-LSB-", "-RSB-", "-LCB-", "-RCB-", "co\\/op", "f\\*k", "``", "''", "'s", "4\u00a01\\/2"]
    path = write(tmp_path / "a.txt", "(3 (2 It) " + " ".join(f"(2 {word})" for word in words) + ")")
    (text,) = read(path)
    assert text.content == ["It", *"()[]{}", "co/op", "f*k", '"', '"', "'s", "4\u00a01/2"]


def test_a_deep_tree() -> None:
    words, phrases = parse_tree("(3 (2 a) " * 20_000 + "(2 b)" + ")" * 20_000)
    assert len(words) == 20_001
    assert len(phrases) == 40_001


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("(3 (2 A) (3 fine)", "closing brackets are missing: 1"),
        ("(3 (2 A) (3 fine)))", ") after the end of the tree"),
        ("(3 (2 A)) (3 fine)", "( after the end of the tree"),
        ("word (2 A)", "word before the first opening bracket"),
        ("(5 (2 A))", "5 after an opening bracket; expected a label, 0 to 4"),
        ("(3 (2 A) (", "nothing after an opening bracket"),
        ("(3 (2 A fine))", "the word fine without a label"),
        ("(3 (2 A) fine)", "the word fine without a label"),
        ("(3 A (2 fine))", "a node inside the one that holds the word A"),
        ("(3 (2 A) (2))", "a node without a word, after 1 words"),
    ],
)
def test_bad_trees(tmp_path: Path, line: str, problem: str) -> None:
    refuses(write(tmp_path / "a.txt", f"{TREES}\n{line}\n"), "a.txt, line 5", problem, "Expected a tree such as")


# ------------------------------------------------------------------------------- fastText, and any layout


def test_lines_of_fasttext(tmp_path: Path) -> None:
    """The label may stand at the end. Files may end in .ft.txt, or in nothing."""
    for name in ("train.ft.txt", "test.ft.txt"):
        write(tmp_path / name, '__label__2 Great CD: my  lovely, "Pat"\n\nBad one __label__1\n')
    texts = read(tmp_path)
    assert [(text.content, text.label) for text in texts[:2]] == [
        ('Great CD: my  lovely, "Pat"', "2"),
        ("Bad one", "1"),
    ]
    assert [text.split for text in texts] == ["train", "train", "test", "test"]
    assert pairs(write(tmp_path / "reviews", "__label__a b\n")) == [("b", "a")]


def test_bad_lines_of_fasttext(tmp_path: Path) -> None:
    good = "__label__a text\n"
    refuses(write(tmp_path / "a.ft", good + "__label__a __label__b text\n"), "a.ft, line 2: 2 labels (a, b)")
    refuses(write(tmp_path / "a.ft", good + "text\n"), "a.ft, line 2: no __label__")
    refuses(write(tmp_path / "a.ft", good + "__label__ text\n"), "a.ft, line 2: no label")
    refuses(write(tmp_path / "a.ft", good + "__label__a \n"), "1 empty texts", "a.ft, line 2")
    refuses(tmp_path / "a.ft", "no table but lines of fastText", "--no_header", flags=("--no_header",))
    refuses(tmp_path / "a.ft", "no trees but lines of fastText", "--labels", flags=("--labels", "five"))


def test_what_is_no_layout(tmp_path: Path) -> None:
    """The message shows every layout."""
    layouts = ("good", "<TAB>positive", "__label__positive", "(3 (2 A)", "train/positive/0_9.txt")[1:]
    refuses(tmp_path / "missing", "missing: no such file or folder", *layouts)
    refuses(tmp_path, "no labelled texts in it", *layouts)
    refuses(write(tmp_path / "prose.txt", "One sentence.\nAnother, longer one.\n"), "in the first line: One", *layouts)
    refuses(write(tmp_path / "empty.txt", "\n"), "empty.txt: empty", *layouts)
    write(tmp_path / "b" / "train.csv", table(PAIRS))
    write(tmp_path / "b" / "test.txt", TREES)
    refuses(tmp_path / "b", "train.csv holds a table, test.txt holds trees", *layouts)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    rows = b"text,label\n" + table(PAIRS).encode() * 500
    refuses(write(tmp_path / "a.csv", rows + b"caf\xe9,x\n"), "a.csv, line 2002: byte 0xe9, number 4 of the line")
    assert pairs(tmp_path / "a.csv", "--encoding", "latin-1")[-1] == ("café", "x")
    refuses(
        write(tmp_path / "b.csv", rows + b"caf\x81,x\n"), "is not windows-1252", flags=("--encoding", "windows-1252")
    )
    refuses(write(tmp_path / "c.csv", rows + b"a\0b,x\n"), "c.csv, line 2002: a NUL byte")
    refuses(tmp_path / "a.csv", "--encoding klingon: unknown", flags=("--encoding", "klingon"))
    path = write(tmp_path / "d.csv", table([("text", "label"), *PAIRS]).encode("utf-16"))
    assert pairs(path, "--encoding", "utf-16") == PAIRS
    refuses(write(path, path.read_bytes()[2:]), "d.csv: not utf-16", flags=("--encoding", "utf-16"))


@pytest.mark.parametrize("start", ["__label__a ", "(3 (2 A) (2 ", "text,label\n", '"'])
def test_a_line_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: str) -> None:
    """Its first characters are read only."""
    monkeypatch.setattr(files, "LONGEST_LINE", 1000)
    monkeypatch.setattr(tables, "LONGEST_LINE", 1000)
    path = write(tmp_path / ("a.csv" if "," in start or start == '"' else "a.txt"), start + "x" * 5000)
    refuses(path, "a.", f"line {1 + start.count(chr(10))}: more than 1,000 characters", "one text a line")


def test_a_quotation_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not read to the end of the file."""
    monkeypatch.setattr(tables, "LONGEST_LINE", 10_000)
    path = write(tmp_path / "a.csv", "text,label\n" + table(PAIRS) * 500 + '"' + "word\n" * 5000)
    refuses(path, "a.csv, line 2002", "field larger than field limit", "quotation mark")


def test_cases_on_the_border(tmp_path: Path) -> None:
    """Empty cells are no row; prose with commas is no table; a .csv is a table whatever its texts say."""
    assert pairs(write(tmp_path / "e.csv", "text,label\na,b\nc,b\n , \n")) == [("a", "b"), ("c", "b")]
    refuses(write(tmp_path / "a.csv", "text,label\na,b\nc,\n"), "a.csv, line 3: no label")
    refuses(write(tmp_path / "a.txt", "One, two.\nNone.\nNor here.\nHere.\n"), "in the first line: One, two.")
    rows = [("__label__a", "good"), ("No", "bad"), ("So", "good"), ("Yes", "bad")]
    assert pairs(write(tmp_path / "b.csv", table(rows))) == rows
    assert pairs(write(tmp_path / "c.csv", "class,text\n" + table(rows)), "--text_column", "class") == rows


def test_a_small_val_may_have_each_class_once(tmp_path: Path) -> None:
    write(tmp_path / "dev.csv", "text,label\na,x\nb,y\nc,z\n")
    assert [text.label for text in read(tmp_path)] == ["x", "y", "z"]


def test_what_excel_writes(tmp_path: Path) -> None:
    """A line that names the separator, and a workbook that is called .csv."""
    path = write(tmp_path / "a.csv", "sep=;\r\ntext;label\r\n" + "".join(f"t {i};{'ab'[i % 2]}\r\n" for i in range(9)))
    assert pairs(path) == [(f"t {i}", "ab"[i % 2]) for i in range(9)]
    refuses(write(tmp_path / "b.csv", "sep=;\ntext;label\na;b\nc\n"), "b.csv, line 4")
    (tmp_path / "c.csv").write_bytes(b"PK\x03\x04\x14\x00\x06\x00")
    refuses(tmp_path / "c.csv", "c.csv: an Excel workbook", "Save it as CSV")


def test_the_encoding_of_western_files_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("text,label\n\u201cbon\u201d,x\npas,y\n".encode("windows-1252"))
    refuses(tmp_path / "a.csv", "a.csv, line 2: byte 0x93", "--encoding windows-1252")
    assert pairs(tmp_path / "a.csv", "--encoding", "windows-1252") == [("\u201cbon\u201d", "x"), ("pas", "y")]


def test_splits_with_their_columns_in_another_order(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "id,text,label\n1,a b,x\n2,b,y\n3,c,x\n")
    write(tmp_path / "test.csv", "label,text\ny,d\n")
    assert pairs(tmp_path)[-1] == ("d", "y")


def test_numbers_are_no_classes(tmp_path: Path) -> None:
    """Nor are they if some of them are equal."""
    rows = "".join(f"text {i},{i % 25 / 7:.3f}\n" for i in range(40))
    refuses(write(tmp_path / "a.csv", "text,score\n" + rows), "25 different labels in 40 rows", "tabular_prediction")


def test_only_the_column_that_is_unclear_is_asked_for(tmp_path: Path) -> None:
    rows = "".join(f"{i},a {i},b {i}\n" for i in range(9))
    path = write(tmp_path / "a.csv", "one,two,three\n" + rows)
    refuses(
        path, "which column is the label? The first row", "Choose with --label_column", flags=("--text_column", "2")
    )


def test_columns_that_are_not_read_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "a.csv", "id,review,mood,label\n1,a b,1,x\n2,b c,2,y\n")
    with caplog.at_level(logging.INFO):
        assert pairs(path) == [("a b", "x"), ("b c", "y")]
    assert "text in column 2 (review), label in column 4 (label), not read: 1 (id), 3 (mood)" in caplog.text


def test_a_file_for_each_class(tmp_path: Path) -> None:
    """As the names of PyTorch's tutorial come."""
    write(tmp_path / "Czech.txt", "Abl\nAdsit\n\n")
    write(tmp_path / "Irish.txt", "O'Neal\n")
    assert pairs(tmp_path) == [("Abl", "Czech"), ("Adsit", "Czech"), ("O'Neal", "Irish")]
    assert read(tmp_path)[1].place == (str(tmp_path / "Czech.txt"), 2)
    write(tmp_path / "Irish.txt", "O'Neal\tIrish\n")
    refuses(tmp_path, "which of Czech.txt, Irish.txt?")
