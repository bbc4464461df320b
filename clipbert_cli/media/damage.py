"""Damage that decoders pass over in codecs without checksums: what is coded in a packet has to end where the packet
does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from clipbert_cli.errors import DecodeError
from clipbert_cli.media import gif
from clipbert_cli.media.vp8 import stream as vp8

_VERDICTS: dict[str, Callable[[Iterable[bytes]], Iterator[bool | None]]] = {"gif": gif.verdicts, "vp8": vp8.verdicts}
JUDGED = frozenset(_VERDICTS)
"""Codecs, by FFmpeg's names, whose packets can be judged."""


def first_damaged(codec: str, packets: Iterable[bytes]) -> int | None:
    """The number of the first packet that is not as it was written; None where all are, as far as they are judged.

    Also None where none is: then they are of an encoder that ends its packets in a way of its own. Unless the container
    turns out to be damaged too, which ends `packets` with a `DecodeError`.
    """
    numbers: dict[bool, int] = {}  # of the first packet that is whole, and of the first one that is not
    try:
        for number, is_whole in enumerate(_VERDICTS[codec](packets)):
            if is_whole is not None:
                numbers.setdefault(is_whole, number)
            if len(numbers) == 2:
                return numbers[False]
    except DecodeError:
        return numbers.get(False)
    return None
