"""Making things in a thread while earlier ones are used."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Iterator[T], *, depth: int = 2) -> Iterator[T]:
    """The same items in the same order, up to `depth` of them made beforehand by a thread.

    What `items` raises is raised here, in its place. The thread ends with this iterator: where that is given up early,
    after the item it is at.
    """
    made: queue.Queue[tuple[str, T | BaseException | None]] = queue.Queue(depth)
    given_up = threading.Event()

    def put(what: str, value: T | BaseException | None) -> None:
        while not given_up.is_set():
            try:
                made.put((what, value), timeout=0.1)
            except queue.Full:
                continue
            return

    def work() -> None:
        try:
            for item in items:
                put("item", item)
                if given_up.is_set():
                    return
        except BaseException as exc:  # noqa: BLE001 - it is raised again by who uses the items
            put("error", exc)
        else:
            put("end", None)

    thread = threading.Thread(target=work, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            what, value = made.get()
            if what == "end":
                return
            if isinstance(value, BaseException) and what == "error":
                raise value
            yield value  # type: ignore[misc]
    finally:
        given_up.set()
        thread.join()
