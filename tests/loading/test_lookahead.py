"""A thread makes the same items beforehand, with errors in their places, and ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from clipbert_cli.loading.prefetch import lookahead


def counted(stop: int, made: list[int]) -> Iterator[int]:
    for number in range(stop):
        made.append(number)
        yield number


def threads() -> int:
    return sum(thread.name.startswith("lookahead") for thread in threading.enumerate())


def test_items_come_in_order_and_the_thread_ends() -> None:
    assert list(lookahead(counted(50, []))) == list(range(50))
    assert threads() == 0


def test_an_error_comes_after_the_items_before_it() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise ValueError("the second")

    items = lookahead(failing())
    assert next(items) == 1
    with pytest.raises(ValueError, match="the second"):
        next(items)
    assert threads() == 0


def test_given_up_early_it_makes_few_more() -> None:
    made: list[int] = []
    items = lookahead(counted(1000, made), depth=2)
    assert next(items) == 0
    items.close()  # type: ignore[attr-defined]
    assert threads() == 0
    assert len(made) <= 5
