"""The program that throws a cache line back from a CPU of its own; it imports nothing but the standard library, so that
it starts at once."""

import mmap
import os
import sys

CHUNKS, VOLLEYS = 15, 40
"""A rally is one volley, then so many times so many: a third of a millisecond."""

MOST_WAITS = 20_000_000
"""Looks at a line before its partner is given up: half a second or more."""

OURS, THEIRS = 1, 2
"""Whose turn it is: the partner answers one by the other."""


def wait_for(board: memoryview, turn: int) -> None:
    """Look until it is somebody's turn. Raises `TimeoutError` when it never is."""
    for _ in range(MOST_WAITS):
        if board[0] == turn:
            return
    raise TimeoutError("nobody answers")


def throw_back(number: int, cpu: int) -> None:
    """Answer rallies on a CPU, in the file of this number, until the input ends."""
    os.sched_setaffinity(0, {cpu})
    board = memoryview(mmap.mmap(number, mmap.PAGESIZE))
    while sys.stdin.buffer.read(1):
        sys.stdout.buffer.write(b"\n")
        sys.stdout.buffer.flush()
        try:
            for _ in range(1 + CHUNKS * VOLLEYS):
                wait_for(board, OURS)
                board[0] = THEIRS
        except TimeoutError:
            continue


if __name__ == "__main__":
    throw_back(int(sys.argv[1]), int(sys.argv[2]))
