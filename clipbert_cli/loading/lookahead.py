"""Make items in a thread while earlier ones are used."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

T = TypeVar("T")


def lookahead(items: Iterator[T], *, depth: int = 2) -> Iterator[T]:
    """Yield the same items in the same order, up to `depth` of them made beforehand by a thread.

    An exception of `items` is raised here, in its place. The thread ends with this iterator: if that is closed early,
    after the item that it is making.
    """
    made: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(depth)
    closed = threading.Event()

    def put(item: T | None, error: BaseException | None) -> None:
        # The timeout lets the thread notice that nobody takes items from a full queue any more.
        while not closed.is_set():
            try:
                made.put((item, error), timeout=0.1)
            except queue.Full:
                continue
            return

    def work() -> None:
        try:
            for item in items:
                put(item, None)
                if closed.is_set():
                    return
        except BaseException as exc:  # noqa: BLE001 - it is raised again by the consumer
            put(None, exc)
        else:
            put(None, StopIteration())

    thread = threading.Thread(target=work, name="lookahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = made.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
    finally:
        closed.set()
        thread.join()
