"""A file larger than memory should be: 200,000 reviews answered in bounded memory, killed in the middle and resumed.

Run by hand, after `make demo`:

    .venv/bin/python -m benchmarks.long_file runs/demo

Prints the peak resident set of both processes, and checks that the answers are complete and in order.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory

from artifact.predict.rows import read_rows
from benchmarks.processes import reaped
from models.embedded import movie_reviews


def write_rows(path: Path, count: int) -> None:
    """Short and long reviews in turn, over and over, each with its number."""
    texts = [str(row["text"]) for _, row in read_rows(movie_reviews()) if row["source"] == "rotten_tomatoes"]
    with path.open("w", encoding="utf-8") as file:
        for number, text in enumerate(islice(cycle(texts), count)):
            file.write(json.dumps({"id": number, "text": text}) + "\n")


def run(command: list[str], kill_at: Path | None, rows: int) -> tuple[int, int]:
    """Exit code and peak resident bytes; with `kill_at` the process is killed once that note counts so many rows."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, text=True)
    while kill_at is not None and process.poll() is None:
        time.sleep(0.05)
        if kill_at.exists() and json.loads(kill_at.read_bytes())["rows"] >= rows:
            process.send_signal(signal.SIGKILL)
            break
    return reaped(process)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run that was packed into RUN/artifact")
    parser.add_argument("--rows", type=int, default=200_000)
    options = parser.parse_args()
    with TemporaryDirectory(prefix="steelyard-") as folder:
        data, out = Path(folder) / "reviews.jsonl", Path(folder) / "answers.jsonl"
        write_rows(data, options.rows)
        program = str(options.run / "artifact" / "predict.py")
        command = [sys.executable, program, "--data", str(data), "--out", str(out), "--keep", "id"]
        start = time.monotonic()
        code, peak = run(command, out.with_name(f"{out.name}.part.json"), options.rows // 2)
        print(f"killed (code {code}) after {time.monotonic() - start:.0f} s, peak {peak / 1e6:.0f} MB")
        start = time.monotonic()
        code, peak = run(command, None, 0)
        print(f"resumed, code {code} after {time.monotonic() - start:.0f} s, peak {peak / 1e6:.0f} MB")
        with out.open(encoding="utf-8") as file:
            ids = [json.loads(line)["id"] for line in file]
        print(f"{len(ids):,} answers, complete and in order: {ids == list(range(options.rows))}")


if __name__ == "__main__":
    main()
