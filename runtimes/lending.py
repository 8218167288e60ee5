"""Things that take long to make, such as caches of one size: lent to one user at a time, and used again."""

import queue
import weakref
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

Size = TypeVar("Size", bound=Hashable)
Thing = TypeVar("Thing")


class Pool(Generic[Size, Thing]):
    """What `make` makes for a size, of which `made` has all. Whoever gets one finds it as the last user left it."""

    def __init__(self, make: Callable[[Size], Thing]) -> None:
        self._make = make
        self._idle: defaultdict[Size, queue.SimpleQueue[Thing]] = defaultdict(queue.SimpleQueue)
        self.made: list[Thing] = []

    def lend(self, user: object, size: Size) -> Thing:
        """One that serves others again when `user` is gone. Raises what `make` raises."""
        thing = self._take(size)
        weakref.finalize(user, self._idle[size].put, thing).atexit = False
        return thing

    @contextmanager
    def borrowed(self, size: Size) -> Iterator[Thing]:
        """One for a block, which is not used again when the block fails."""
        thing = self._take(size)
        yield thing
        self._idle[size].put(thing)

    def clear(self) -> None:
        """Forget all; what is lent now does not come back."""
        self._idle.clear()
        self.made.clear()

    def _take(self, size: Size) -> Thing:
        try:
            return self._idle[size].get_nowait()
        except queue.Empty:
            self.made.append(self._make(size))
            return self.made[-1]
