"""The command line of an artifact.

python predict.py "A film to remember."                one line for each text: label, score, text
python predict.py --json < texts.txt                   one JSON object for each line of standard input
python predict.py --data reviews.csv --out out.jsonl   a whole file, in its order; resumed after a kill
python predict.py --selftest                           the packed examples must give the reference's answers

from predict import Predictor
predictor = Predictor.open("path/to/artifact")
predictor.predict(["A film to remember."])
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from artifact.predict.predictor import Predictor
from artifact.predict.program import ended, keep_freed_blocks, return_freed_blocks, told_on_terminal
from artifact.predict.reads import Reads
from artifact.predict.rows import ItemColumns, read_items
from artifact.predict.stream import Wanted, item_size, plain, predict_file, record, windows
from errors import UserError


def items_from(words: Sequence[str], reads: Reads) -> list[Any]:
    """Items from a command line: each word is a text or a file; two after another are a pair.

    Raises `UserError` for a word left over.
    """
    if reads.is_file:
        return [Path(word) for word in words]
    if reads is Reads.PAIR:
        if len(words) % 2:
            raise UserError("the model reads two texts at a time, and one is left over", "give texts in pairs")
        return list(zip(words[::2], words[1::2], strict=True))
    return list(words)


def items_from_lines(lines: Iterator[bytes], reads: Reads, source: str) -> Iterator[Any]:
    """Items from lines of UTF-8; the two texts of a pair have a tab between them."""
    for number, line in enumerate(lines, start=1):
        try:
            text = line.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            raise UserError(f"{source}, line {number}: not UTF-8 text", "convert it to UTF-8") from error
        if reads is Reads.PAIR:
            first, tab, second = text.partition("\t")
            if not tab:
                raise UserError(f"{source}, line {number}: no tab between the two texts", "write TEXT, tab, TEXT")
            yield first, second
        else:
            yield Path(text) if reads.is_file else text


def asked_items(predictor: Predictor, words: Sequence[str], data: Path | None, columns: ItemColumns) -> Iterator[Any]:
    """What is to be answered: the rows of a file, the words of the command line, or the lines of standard input."""
    reads = predictor.manifest.reads
    if data is not None:
        return (item for item, _ in read_items(data, reads, columns))
    if words:
        return iter(items_from(words, reads))
    return items_from_lines(iter(sys.stdin.buffer), reads, "standard input")


def answer_lines(predictor: Predictor, items: Iterator[Any], wanted: Wanted, *, as_json: bool) -> Iterator[str]:
    """One line for each item, as soon as its window is answered."""
    for window in windows(items, item_size):
        answers = predictor.predict(window, top_k=wanted.top_k, threshold=wanted.threshold)
        for item, answer in zip(window, answers, strict=True):
            yield json.dumps(record(item, answer), ensure_ascii=False) if as_json else plain(item, answer)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Answer texts, pictures or recordings with this artifact.")
    parser.add_argument("items", nargs="*", metavar="ITEM", help="texts or files; without any, the lines of the input")
    parser.add_argument("--data", type=Path, help="a .csv, .tsv, .jsonl or .parquet file with a row for each item")
    parser.add_argument("--out", type=Path, help="a .jsonl or .csv file for the answers to --data")
    parser.add_argument("--text-column", help="column of --data that holds the item")
    parser.add_argument("--pair-column", help="column of --data that holds the second text of a pair")
    parser.add_argument("--keep", action="append", default=[], metavar="COLUMN", help="column to carry over into --out")
    parser.add_argument("--top-k", type=int, help="tell only so many labels or tokens")
    parser.add_argument("--threshold", type=float, default=0.5, help="score from which one of several labels applies")
    parser.add_argument("--json", action="store_true", help="one JSON object for each item")
    parser.add_argument("--selftest", action="store_true", help="compare with the packed reference examples")
    parser.add_argument("--threads", type=int, help="threads (default: the cores this process may use)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 1 when a check did not confirm, 2 for wrong use or input."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.items:
        keep_freed_blocks()
    else:
        return_freed_blocks()
    for name in ("threads", "top_k"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} takes a number of at least 1")
    if bool(options.out) > bool(options.data) or (options.items and options.data):
        parser.error("--out goes with --data, and --data with no ITEM")
    return ended(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    columns = ItemColumns(options.text_column, options.pair_column)
    wanted = Wanted(columns=columns, kept=tuple(options.keep), top_k=options.top_k, threshold=options.threshold)
    predictor = Predictor.open(Path(__file__).resolve().parent, threads=options.threads)
    if options.selftest:
        problems = predictor.selftest()
        print("\n".join(problems) or f"selftest passed on {predictor.threads} threads")
        return 1 if problems else 0
    if options.out:
        with told_on_terminal() as told:
            rows = predict_file(predictor, options.data, options.out, wanted, told)
        print(f"{rows:,} answers in {options.out}")
        return 0
    items = asked_items(predictor, options.items, options.data, columns)
    for line in answer_lines(predictor, items, wanted, as_json=options.json):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
