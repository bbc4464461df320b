"""Make items in a thread while earlier ones are used."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")

_END: Any = object()


def lookahead(items: Iterator[T], *, depth: int = 3) -> Iterator[T]:
    """Yield the same items in the same order, up to `depth` of them made beforehand by a thread.

    An exception of `items`, which is a generator, is raised here, in its place. The thread ends with this iterator: if
    that is closed early, after the item that it is making.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="lookahead")
    try:
        made = deque(pool.submit(next, items, _END) for _ in range(depth))
        while (item := made.popleft().result()) is not _END:
            made.append(pool.submit(next, items, _END))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)
