"""What takes long to make is made once for each user at a time."""

from contextlib import suppress
from itertools import count

from runtimes.lending import Pool


class User:
    """Somebody who can be gone."""


def test_what_is_lent_serves_others_when_its_user_is_gone() -> None:
    numbers = count()
    pool: Pool[int, tuple[int, int]] = Pool(lambda size: (size, next(numbers)))
    first, second = User(), User()
    assert pool.lend(first, 4) == (4, 0)
    assert pool.lend(second, 4) == (4, 1)  # the first is in use
    del first
    third = User()
    assert pool.lend(third, 8) == (8, 2)  # of another size
    assert pool.lend(User(), 4) == (4, 0)
    assert pool.made == [(4, 0), (4, 1), (8, 2)]
    pool.clear()
    del second
    assert pool.lend(third, 4) == (4, 3)  # what was lent before does not come back
    assert pool.made == [(4, 3)]


def test_what_a_block_failed_with_is_not_used_again() -> None:
    numbers = count()
    pool: Pool[None, int] = Pool(lambda _: next(numbers))
    with pool.borrowed(None) as thing:
        assert thing == 0
    with suppress(RuntimeError), pool.borrowed(None):
        raise RuntimeError
    with pool.borrowed(None) as thing:
        assert thing == 1
