"""What a VP8 frame says before its macroblocks (RFC 6386), and what of it goes on to the next frames."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from clipbert_cli.data.vp8.entropy import Partition
from clipbert_cli.data.vp8.tables import COEFFICIENT_UPDATES, COEFFICIENTS, VECTOR_UPDATES, VECTORS

_UPDATES = VECTOR_UPDATES[:19], VECTOR_UPDATES[19:]
_MODES, _COLOUR_MODES = (112, 86, 140, 37), (162, 101, 204)  # probabilities at a key frame (16.2)


@dataclass
class Probabilities:
    """What goes on from frame to frame, unless a frame says that its own are for itself alone."""

    coefficients: bytes = COEFFICIENTS
    vectors: tuple[bytes, ...] = (VECTORS[:19], VECTORS[19:])
    modes: tuple[int, ...] = _MODES
    colour_modes: tuple[int, ...] = _COLOUR_MODES


@dataclass
class Head:
    """What a frame says before its macroblocks."""

    is_key: bool
    segments: tuple[int, ...] | None  # probabilities, where it says of what segments its macroblocks are
    partitions: int  # of coefficients
    skipped: int | None  # in 256 macroblocks that have coefficients, where some have none
    references: tuple[int, ...]  # probabilities: of no other frame, the last one, the golden one
    opposite: list[bool]  # by reference, whether vectors into it have the other sign
    probabilities: Probabilities


class HeadReader:
    """Reads the heads of a stream's frames, one after the other."""

    def __init__(self) -> None:
        self._kept = Probabilities()
        self._opposite = [False] * 4

    def read(self, first: Partition, *, is_key: bool) -> Head:
        """The head of the next frame, at the beginning of its first partition."""
        if is_key:
            self._kept = Probabilities()
            self._opposite = [False] * 4
        flag, number = first.flag, first.number
        if is_key:
            number(2)  # colour space, clamping
        segments = None
        if flag():
            has_segments, has_values = flag(), flag()
            if has_values:
                flag()
                for bits in (7,) * 4 + (6,) * 4:
                    _optional(first, bits + 1)
            if has_segments:
                segments = tuple(number(8) if flag() else 255 for _ in range(3))
        number(10)  # of the loop filter: kind, strength, sharpness
        if flag() and flag():
            for _ in range(8):
                _optional(first, 7)
        partitions = 1 << number(2)
        number(7)  # of the quantizer
        for _ in range(5):
            _optional(first, 5)
        is_kept = self._references(first, is_key)
        probabilities = self._kept if is_kept else dataclasses.replace(self._kept)
        probabilities.coefficients = bytes(
            number(8) if flag(update) else before
            for before, update in zip(probabilities.coefficients, COEFFICIENT_UPDATES, strict=True)
        )
        skipped = number(8) if flag() else None
        references: tuple[int, ...] = ()
        if not is_key:
            references = tuple(number(8) for _ in range(3))
            if flag():
                probabilities.modes = tuple(number(8) for _ in range(4))
            if flag():
                probabilities.colour_modes = tuple(number(8) for _ in range(3))
            probabilities.vectors = tuple(
                bytes(
                    (number(7) << 1 or 1) if flag(update) else before
                    for before, update in zip(vector, updates, strict=True)
                )
                for vector, updates in zip(probabilities.vectors, _UPDATES, strict=True)
            )
        return Head(is_key, segments, partitions, skipped, references, self._opposite, probabilities)

    def _references(self, first: Partition, is_key: bool) -> bool:
        """What becomes of the reference frames (9.7), and whether the frame's probabilities are kept (9.11)."""
        flag, number = first.flag, first.number
        if is_key:
            return flag()
        is_golden, is_other = flag(), flag()
        if not is_golden:
            number(2)
        if not is_other:
            number(2)
        self._opposite = [False, False, flag(), flag()]
        is_kept = flag()
        flag()
        return is_kept


def _optional(partition: Partition, bits: int) -> None:
    if partition.flag():
        partition.number(bits)
