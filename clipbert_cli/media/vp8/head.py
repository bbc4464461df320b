"""What a VP8 frame says before its macroblocks (RFC 6386), and what of it goes on to the next frames."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from clipbert_cli.media.vp8.entropy import Partition
from clipbert_cli.media.vp8.tables import COEFFICIENT_UPDATES, COEFFICIENTS, VECTOR_UPDATES, VECTORS

_MODES, _COLOUR_MODES = (112, 86, 140, 37), (162, 101, 204)  # probabilities at a key frame (16.2)


@dataclass(frozen=True, slots=True)
class Probabilities:
    """What goes on from frame to frame, unless a frame says that its own are for itself alone."""

    coefficients: bytes = COEFFICIENTS
    vectors: tuple[bytes, ...] = VECTORS
    modes: tuple[int, ...] = _MODES
    colour_modes: tuple[int, ...] = _COLOUR_MODES


@dataclass(frozen=True, slots=True)
class Head:
    """What a frame says before its macroblocks."""

    is_key: bool
    segments: tuple[int, ...] | None  # probabilities, where it says of what segments its macroblocks are
    partitions: int  # of coefficients
    coded: int | None  # of 256, how probable it is that a macroblock has coefficients; None where all are said to
    references: tuple[int, ...]  # probabilities: of no other frame, the last one, the golden one
    opposite: tuple[bool, ...]  # by reference, whether vectors into it have the other sign
    probabilities: Probabilities


class HeadReader:
    """Reads the heads of a stream's frames, one after the other."""

    def __init__(self) -> None:
        self._kept = Probabilities()

    def read(self, partition: Partition, *, is_key: bool) -> Head:
        """The head of the next frame, at the beginning of its first partition (9.2 to 9.11, 19.2)."""
        if is_key:
            self._kept = Probabilities()
            partition.number(2)  # colour space, clamping
        segments = _segments(partition)
        _pass_filters(partition)
        partitions = 1 << partition.number(2)
        _pass_quantizers(partition)
        opposite, is_kept = ((False,) * 4, partition.flag()) if is_key else _references(partition)
        probabilities = dataclasses.replace(
            self._kept, coefficients=_updated(partition, self._kept.coefficients, COEFFICIENT_UPDATES, _number)
        )
        coded = partition.number(8) if partition.flag() else None
        references: tuple[int, ...] = ()
        if not is_key:
            references = _numbers(partition, 3)
            probabilities = _changed(partition, probabilities)
        if is_kept:
            self._kept = probabilities
        return Head(is_key, segments, partitions, coded, references, opposite, probabilities)


def _segments(partition: Partition) -> tuple[int, ...] | None:
    """Probabilities of a macroblock's segment, where the frame says of what segments they are (9.3)."""
    if not partition.flag():
        return None
    is_said, has_values = partition.flag(), partition.flag()
    if has_values:
        partition.flag()
        for bits in (7,) * 4 + (6,) * 4:
            _pass_optional(partition, bits + 1)
    return tuple(partition.number(8) if partition.flag() else 255 for _ in range(3)) if is_said else None


def _pass_filters(partition: Partition) -> None:
    """The loop filter's kind, strength and sharpness, and what differs by mode (9.6)."""
    partition.number(10)
    if partition.flag() and partition.flag():
        for _ in range(8):
            _pass_optional(partition, 7)


def _pass_quantizers(partition: Partition) -> None:
    """The quantizer, and how the five others differ from it (9.6)."""
    partition.number(7)
    for _ in range(5):
        _pass_optional(partition, 5)


def _references(partition: Partition) -> tuple[tuple[bool, ...], bool]:
    """What becomes of the reference frames (9.7): whose vectors have the other sign; and whether the frame's
    probabilities are kept (9.11)."""
    is_golden, is_other = partition.flag(), partition.flag()
    for is_refreshed in (is_golden, is_other):
        if not is_refreshed:
            partition.number(2)
    opposite = False, False, partition.flag(), partition.flag()
    is_kept = partition.flag()
    partition.flag()
    return opposite, is_kept


def _changed(partition: Partition, before: Probabilities) -> Probabilities:
    """With what a frame that is no key frame may change (9.10, 16.2, 17.2)."""
    modes = _numbers(partition, 4) if partition.flag() else before.modes
    colour_modes = _numbers(partition, 3) if partition.flag() else before.colour_modes
    vectors = tuple(
        _updated(partition, vector, updates, _vector_number)
        for vector, updates in zip(before.vectors, VECTOR_UPDATES, strict=True)
    )
    return dataclasses.replace(before, modes=modes, colour_modes=colour_modes, vectors=vectors)


def _updated(partition: Partition, before: bytes, updates: bytes, read: Callable[[Partition], int]) -> bytes:
    return bytes(
        read(partition) if partition.flag(update) else each for each, update in zip(before, updates, strict=True)
    )


def _number(partition: Partition) -> int:
    return partition.number(8)


def _vector_number(partition: Partition) -> int:
    return partition.number(7) << 1 or 1


def _numbers(partition: Partition, count: int) -> tuple[int, ...]:
    return tuple(partition.number(8) for _ in range(count))


def _pass_optional(partition: Partition, bits: int) -> None:
    if partition.flag():
        partition.number(bits)
