"""What a VP8 frame says of each macroblock before its coefficients: modes and motion (RFC 6386)."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from clipbert_cli.media.vp8.entropy import HAS_Y2, IS_CODED, Partition
from clipbert_cli.media.vp8.head import Head, Probabilities
from clipbert_cli.media.vp8.tables import KEY_SUBBLOCK_MODES

Vector = tuple[int, int]
"""Rows and columns, in quarters of a pixel."""

_DC, _VERTICAL, _HORIZONTAL, _TRUE_MOTION, _BY_SUBBLOCK = range(5)  # modes of a macroblock
_SAME_SUBBLOCK_MODE = {_DC: 0, _TRUE_MOTION: 1, _VERTICAL: 2, _HORIZONTAL: 3}

# Trees and their probabilities at a key frame, or in every one (8.1: pairs of places; ~ makes a leaf).
_KEY_MODES = (~_BY_SUBBLOCK, 2, 4, 6, ~_DC, ~_VERTICAL, ~_HORIZONTAL, ~_TRUE_MOTION), (145, 156, 163, 128)  # 11.2
_MODE_TREE = (~_DC, 2, 4, 6, ~_VERTICAL, ~_HORIZONTAL, ~_TRUE_MOTION, ~_BY_SUBBLOCK)  # 16.1
_COLOUR_TREE = (~_DC, 2, ~_VERTICAL, 4, ~_HORIZONTAL, ~_TRUE_MOTION)  # 11.2
_KEY_COLOUR_MODES = (142, 114, 183)
_SUBBLOCK_TREE = (~0, 2, ~1, 4, ~2, 6, 8, 12, ~3, 10, ~5, ~6, ~4, 14, ~7, 16, ~8, ~9)  # 11.2
_SUBBLOCK_MODES = (120, 90, 79, 133, 87, 85, 80, 111, 151)  # 16.1
_SEGMENT_TREE = (2, 4, ~0, ~1, ~2, ~3)  # 10

_SAME, _NEAREST, _NEAR, _NEW, _PARTED = range(5)  # motion of a macroblock
_MOTION_TREE = (~_SAME, 2, ~_NEAREST, 4, ~_NEAR, 6, ~_NEW, ~_PARTED)  # 16.3
_MOTION = (
    (7, 1, 1, 143),
    (14, 18, 14, 107),
    (135, 64, 57, 68),
    (60, 56, 128, 65),
    (159, 134, 128, 34),
    (234, 188, 128, 28),
)
# How 16 subblocks are parted (16.3): sixteen, quarters, above and below, left and right.
_PARTING_TREE, _PARTING = (~0, 2, ~1, 4, ~2, ~3), (110, 111, 150)
_PARTINGS = [
    [[block for block in range(16) if part(block) == number] for number in range(count)]
    for count, part in (
        (16, lambda block: block),
        (4, lambda block: block // 8 * 2 + block % 4 // 2),
        (2, lambda block: block // 8),
        (2, lambda block: block % 4 // 2),
    )
]
# A part moves as what is to its left, what is above it, not at all, or otherwise (16.3).
_PART_TREE = (~0, 2, ~1, 4, ~2, ~3)
_PART_STILL, _PART_SAME = (208, 1, 1), (223, 1, 34)
_PART_ABOVE_STILL, _PART_LEFT_STILL, _PART_ELSE = (179, 121, 1), (106, 145, 1), (147, 136, 18)
_SHORT_TREE = (2, 8, 4, 6, ~0, ~1, ~2, ~3, 10, 12, ~4, ~5, ~6, ~7)  # 17.2
_LONG_BITS = (0, 1, 2, 9, 8, 7, 6, 5, 4)  # in the order they are written; the fourth comes last

_STILL: Vector = (0, 0)
_SIDE = 4 * 16  # of a macroblock, in quarters of a pixel


def read_flags(partition: Partition, head: Head, rows: int, columns: int) -> Iterator[list[int]]:
    """The flags of the macroblocks, a row at a time: what it takes to read their coefficients."""
    motion = None if head.is_key else _Motion(partition, head, rows, columns)
    above = [0] * (4 * columns)
    for row in range(rows):
        left = [0] * 4
        flags = []
        for column in range(columns):
            if head.segments:
                partition.leaf(_SEGMENT_TREE, head.segments)
            is_coded = head.coded is None or not partition.flag(head.coded)
            if motion is None:
                has_y2 = _read_key_modes(partition, above, left, 4 * column)
            elif partition.flag(head.references[0]):
                has_y2 = motion.read(row, column)
            else:
                has_y2 = _read_modes(partition, head.probabilities)
            flags.append(HAS_Y2 * has_y2 | IS_CODED * is_coded)
        yield flags


def _read_key_modes(partition: Partition, above: list[int], left: list[int], place: int) -> bool:
    """A macroblock's in a key frame (11.2, 11.3); `above` and `left` are the modes of the subblocks there."""
    mode = partition.leaf(*_KEY_MODES)
    if mode == _BY_SUBBLOCK:
        for side in range(4):
            for upper in range(place, place + 4):
                start = 9 * (10 * above[upper] + left[side])
                above[upper] = left[side] = partition.leaf(_SUBBLOCK_TREE, KEY_SUBBLOCK_MODES[start : start + 9])
    else:
        left[:] = above[place : place + 4] = [_SAME_SUBBLOCK_MODE[mode]] * 4
    partition.leaf(_COLOUR_TREE, _KEY_COLOUR_MODES)
    return mode != _BY_SUBBLOCK


def _read_modes(partition: Partition, probabilities: Probabilities) -> bool:
    """Those of a macroblock that is not predicted from another frame, in a frame where others are (16.1)."""
    mode = partition.leaf(_MODE_TREE, probabilities.modes)
    if mode == _BY_SUBBLOCK:
        for _ in range(16):
            partition.leaf(_SUBBLOCK_TREE, _SUBBLOCK_MODES)
    partition.leaf(_COLOUR_TREE, probabilities.colour_modes)
    return mode != _BY_SUBBLOCK


class _Motion:
    """The motion of a frame's macroblocks, with a border above and to the left of them."""

    def __init__(self, partition: Partition, head: Head, rows: int, columns: int) -> None:
        self._partition, self._head, self._rows, self._columns = partition, head, rows, columns
        self._stride = columns + 1
        count = (rows + 1) * self._stride
        self._references = [0] * count  # 0: of no other frame
        self._vectors = [_STILL] * count
        self._parts: list[list[Vector] | None] = [None] * count  # vectors of the subblocks that have their own

    def read(self, row: int, column: int) -> bool:
        """A macroblock's (16.3)."""
        partition, (_, last, golden) = self._partition, self._head.references
        here = (row + 1) * self._stride + column + 1
        self._references[here] = reference = (2 + partition.flag(golden)) if partition.flag(last) else 1
        counts, near = self._surroundings(here, reference)
        mode = partition.leaf(_MOTION_TREE, [_MOTION[count][node] for node, count in enumerate(counts)])
        if mode == _SAME:
            return True
        best, nearest, second = near
        inside = functools.partial(clamped, row=row, column=column, rows=self._rows, columns=self._columns)
        if mode == _NEAREST:
            self._vectors[here] = inside(nearest)
        elif mode == _NEAR:
            self._vectors[here] = inside(second)
        elif mode == _NEW:
            self._vectors[here] = self._read_vector(inside(best))
        else:
            self._parts[here] = parts = self._read_parts(here, inside(best))
            self._vectors[here] = parts[15]
        return mode != _PARTED

    def _surroundings(self, here: int, reference: int) -> tuple[list[int], list[Vector]]:
        """How often there is no motion around, the most frequent motion, the next one, and parts; and the best guess
        and these two motions."""
        opposite = self._head.opposite
        near, counts = [_STILL], [0, 0, 0, 0]
        around = (here - self._stride, 2), (here - 1, 2), (here - self._stride - 1, 1)
        for place, weight in around:
            if not self._references[place]:
                continue
            vector = self._vectors[place]
            if vector == _STILL:
                counts[0] += weight
                continue
            if opposite[self._references[place]] != opposite[reference]:
                vector = -vector[0], -vector[1]
            if vector != near[-1]:
                near.append(vector)
            counts[len(near) - 1] += weight
        if len(near) == 4 and near[3] == near[1]:
            counts[1] += 1
        counts[3] = sum(weight for place, weight in around if self._parts[place])
        near += [_STILL] * (3 - len(near))
        if counts[2] > counts[1]:
            counts[1:3], near[1:3] = counts[2:0:-1], near[2:0:-1]
        return counts, [near[1] if counts[1] >= counts[0] else _STILL, near[1], near[2]]

    def _read_parts(self, here: int, best: Vector) -> list[Vector]:
        """The vectors of the 16 subblocks."""
        partition = self._partition
        parts = [_STILL] * 16
        for blocks in _PARTINGS[partition.leaf(_PARTING_TREE, _PARTING)]:
            block = blocks[0]
            left = parts[block - 1] if block % 4 else self._vector(here - 1, block + 3)
            above = parts[block - 4] if block > 3 else self._vector(here - self._stride, block + 12)
            kind = partition.leaf(_PART_TREE, _part_probabilities(left, above))
            vector = (left, above, _STILL, None)[kind]
            vector = self._read_vector(best) if vector is None else vector
            for block in blocks:
                parts[block] = vector
        return parts

    def _vector(self, place: int, block: int) -> Vector:
        parts = self._parts[place]
        return parts[block] if parts else self._vectors[place]

    def _read_vector(self, best: Vector) -> Vector:
        """One that is written as a difference (17)."""
        down, right = (_read_length(self._partition, each) for each in self._head.probabilities.vectors)
        return best[0] + down, best[1] + right


def clamped(vector: Vector, *, row: int, column: int, rows: int, columns: int) -> Vector:
    """The nearest vector that leaves a macroblock at most just outside of a frame of `rows` x `columns` (5)."""
    down, right = vector
    return (
        min(max(down, -_SIDE * (row + 1)), _SIDE * (rows - row)),
        min(max(right, -_SIDE * (column + 1)), _SIDE * (columns - column)),
    )


def _part_probabilities(left: Vector, above: Vector) -> tuple[int, int, int]:
    if left == above:
        return _PART_SAME if any(left) else _PART_STILL
    if not any(above):
        return _PART_ABOVE_STILL
    return _PART_ELSE if any(left) else _PART_LEFT_STILL


def _read_length(partition: Partition, probabilities: bytes) -> int:
    """One component of a vector (17.2): long or short, sign, 7 nodes of a short one, 10 bits of a long one."""
    is_long, sign, short, long = probabilities[0], probabilities[1], probabilities[2:9], probabilities[9:]
    if partition.flag(is_long):
        length = sum(partition.flag(long[bit]) << bit for bit in _LONG_BITS)
        if length < 16 or partition.flag(long[3]):
            length += 8
    else:
        length = partition.leaf(_SHORT_TREE, short)
    return -length if length and partition.flag(sign) else length
