"""Files changed as a fuzzer changes them."""

import numpy as np

SNIPPETS = (b"-1", b"1e308", b"null", b"[]", b"{}", b'"', b"\xff", b"\x00", b"9" * 30, b"..", b"/", b"\\u0000", b"*+")


def mutated(data: bytes, random: np.random.Generator) -> bytes:
    """A few bytes changed, cut out, doubled, taken from the beginning, or replaced by what means something."""
    found = bytearray(data)
    for _ in range(int(random.integers(1, 4))):
        start = int(random.integers(0, len(found) + 1))
        end = min(len(found), start + int(random.integers(1, 40)))
        pieces = (
            random.bytes(end - start),
            b"",
            bytes(found[start:end]) * 2,
            bytes(found[: end - start]),
            SNIPPETS[int(random.integers(len(SNIPPETS)))],
        )
        found[start:end] = pieces[int(random.integers(len(pieces)))]
    return bytes(found)
