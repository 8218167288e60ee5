import csv
import json
from pathlib import Path

import pytest

from artifact.examples import Examples, read_examples, read_texts
from artifact.predict.command import items_from_lines
from artifact.predict.reads import Reads
from errors import UserError

GOOD = ("good film", 'a "quoted", split\ntext', "שלום 👩‍👩‍👧")


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def examples_of(*labels: str) -> Examples:
    places = tuple(f"data.csv, row {number}" for number in range(2, 2 + len(labels)))
    return Examples(tuple("t" * len(labels)), labels, Path("data.csv"), "text", "label", places)


@pytest.mark.parametrize(("suffix", "delimiter"), [(".csv", ","), (".tsv", "\t"), (".CSV", ",")])
def test_reads_what_the_csv_module_wrote(tmp_path: Path, suffix: str, delimiter: str) -> None:
    path = tmp_path / f"data{suffix}"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows([("text", "label"), *zip(GOOD, "012", strict=True)])
    examples = read_examples(path)
    assert examples.texts == GOOD
    assert examples.labels == ("0", "1", "2")


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
@pytest.mark.parametrize("ensure_ascii", [True, False])
def test_reads_json_lines_and_skips_blank_ones(tmp_path: Path, suffix: str, ensure_ascii: bool) -> None:
    rows = [json.dumps({"label": n, "text": text}, ensure_ascii=ensure_ascii) for n, text in enumerate(GOOD)]
    examples = read_examples(write(tmp_path / f"data{suffix}", "\n\n".join(rows)))
    assert examples.texts == GOOD
    assert examples.labels == ("0", "1", "2")


def test_a_byte_order_mark_is_not_part_of_the_first_column(tmp_path: Path) -> None:
    assert read_examples(write(tmp_path / "data.csv", b"\xef\xbb\xbftext,label\na,1\n")).text_column == "text"


@pytest.mark.parametrize(
    ("header", "text_column", "label_column"),
    [
        ("id,Sentence,Target", "Sentence", "Target"),
        ("category,document", "document", "category"),
        ("review,text,label", "text", "label"),
    ],
)
def test_usual_column_names_are_found(tmp_path: Path, header: str, text_column: str, label_column: str) -> None:
    row = ",".join("x" for _ in header.split(","))
    examples = read_examples(write(tmp_path / "data.csv", f"{header}\n{row}\n"))
    assert (examples.text_column, examples.label_column) == (text_column, label_column)


def test_named_columns_win_over_usual_ones(tmp_path: Path) -> None:
    path = write(tmp_path / "data.csv", "text,label,body,stars\na,1,b,5\n")
    examples = read_examples(path, text_column="body", label_column="stars")
    assert (examples.texts, examples.labels) == (("b",), ("5",))


def test_where_keeps_only_matching_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "data.csv", "text,label,source\na,1,x\n,,y\nc,0,x\n")
    found = read_examples(path, where={"source": "x"})
    assert found.texts == ("a", "c")
    assert found.places == (f"{path}, row 2", f"{path}, row 4")


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"text_column": "body"}, "--text-column"),
        ({"label_column": "body"}, "--label-column"),
        ({"where": {"body": "x"}}, "--where"),
    ],
)
def test_a_wrong_column_lists_those_there_are(tmp_path: Path, options: dict[str, str], flag: str) -> None:
    path = write(tmp_path / "data.csv", "text,label,source\na,1,x\n")
    with pytest.raises(UserError, match="no column 'body'") as caught:
        read_examples(path, **options)  # type: ignore[arg-type]
    assert "text, label, source" in caught.value.hint
    assert flag in caught.value.hint


def test_no_usual_column_lists_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no column named text") as caught:
        read_examples(write(tmp_path / "data.csv", "body,stars\na,1\n"))
    assert "body, stars" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data.csv", "", "holds no examples"),
        ("data.csv", "text,label\n", "holds no examples"),
        ("data.jsonl", "\n\n", "holds no examples"),
        ("data.csv", "text,label\na,1\nb\n", "line 3: not the header's 2 fields"),
        ("data.csv", "text,label\na,1\nb,c,0\n", "line 3: not the header's 2 fields"),
        ("data.csv", 'text,label\n"a\nb",1\nc\n', "line 4: not the header's 2 fields"),
        ("data.csv", 'label,text\n1,a\n0,"open\n1,b\n', "line 3: not a readable row"),
        ("data.tsv", 'label\ttext\n0\t"open" b\n', "line 2: not a readable row"),
        ("data.csv", "text,label\n ,1\n", "row 2: column 'text' is empty"),
        ("data.csv", "text,label\na,1\nb, \n", "row 3: column 'label' has no label"),
        ("data.jsonl", '{"text": "a", "label": 1}\n{"text": "b", ', "line 2: not JSON"),
        ("data.jsonl", '{"text": "a\\ud800", "label": 1}\n', "line 1: not JSON"),
        ("data.json", '[{"text": "a", "label": 1}]', "line 1: not a JSON object"),
        ("data.jsonl", '{"text": 5, "label": 1}\n', "row 1: column 'text' is empty or not text"),
        ("data.jsonl", '{"text": "a", "label": 1}\n{"text": "b"}\n', "row 2: column 'label' has no label"),
        ("data.jsonl", '{"text": "a", "label": [1]}\n', "row 1: column 'label' has no label"),
        ("data.csv", b"text,label\n" + b"good film,1\n" * 2000 + b"\xff,0\n", "line 2002: not UTF-8"),
        ("data.jsonl", b'{"text": "a", "label": 1}\n{"text": "\xe9", "label": 1}\n', "line 2: not UTF-8"),
        ("data.txt", "text,label\na,1\n", "neither CSV nor JSON"),
    ],
)
def test_a_bad_file_is_named_with_the_place(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(UserError, match=message) as caught:
        read_examples(path)
    assert str(path) in caught.value.message
    assert caught.value.hint


def test_a_filter_that_keeps_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no examples with source=y"):
        read_examples(write(tmp_path / "data.csv", "text,label,source\na,1,x\n"), where={"source": "y"})


@pytest.mark.parametrize("reader", [read_examples, read_texts])
def test_a_missing_file_is_named(tmp_path: Path, reader: type) -> None:
    with pytest.raises(UserError, match=r"gone\.csv does not exist"):
        reader(tmp_path / "gone.csv")


def test_texts_need_no_labels_and_may_be_empty(tmp_path: Path) -> None:
    assert read_texts(write(tmp_path / "data.csv", 'id,text\n1,a\n2,""\n')) == ("a", "")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data.csv", "text\n", "holds no texts"),
        ("data.jsonl", '{"text": "a"}\n{"text": null}\n', "row 2: column 'text' is not text"),
        ("data.csv", "body\na\n", "no column named text"),
    ],
)
def test_texts_that_are_not_there_are_told(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_texts(write(tmp_path / name, content))


def test_select_takes_rows_in_the_order_asked() -> None:
    picked = examples_of("a", "b", "c").select([2, 0])
    assert picked.labels == ("c", "a")
    assert picked.places == ("data.csv, row 4", "data.csv, row 2")
    assert len(picked) == 2


def test_sha256_is_of_the_content_and_not_of_the_format(tmp_path: Path) -> None:
    table = read_examples(write(tmp_path / "data.csv", "label,text\n1,a\n"))
    lines = read_examples(write(tmp_path / "data.jsonl", '{"text": "a", "label": 1}\n'))
    other = read_examples(write(tmp_path / "other.csv", "label,text\n0,a\n"))
    assert table.sha256 == lines.sha256 != other.sha256


def test_lines_of_a_stream_are_texts_and_a_broken_one_is_numbered() -> None:
    lines = iter("naïve\r\n\nfin".encode().splitlines(keepends=True))
    assert list(items_from_lines(lines, Reads.TEXT, "standard input")) == ["naïve", "", "fin"]
    with pytest.raises(UserError, match="standard input, line 2: not UTF-8"):
        list(items_from_lines(iter((b"fine\n", b"\xff\n")), Reads.TEXT, "standard input"))
