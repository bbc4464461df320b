"""VP8's entropy code: booleans, trees and coefficients from the first bit of a partition to its last.

Section numbers are those of RFC 6386. Nothing is dequantized or predicted here. What matters is where it ends: an
arithmetic decoder that a damaged bit has misled does not stop where the encoder did.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from itertools import chain, islice, repeat

from clipbert_cli.media.vp8.tables import COEFFICIENTS

Nodes = list[list[list[bytes]]]
"""(4 kinds of block, 16 positions, 3 contexts) of probabilities, one for every place in `_ON_ZERO`."""

HAS_Y2, IS_CODED = 1, 2
"""Flags of a macroblock: it has a block of the luma blocks' averages; it has coefficients."""

_SHIFTS = bytes(8 - max(1, number).bit_length() for number in range(256))  # that bring a width back to 128 or more
# Bytes that a partition may have less than what libvpx would have written, and zeros that may follow: no encoder is
# known to do so, but some may align.
_FEWER, _MORE = 2, 15

_BANDS = (0, 1, 2, 3, 6, 4, 5, 6, 6, 6, 6, 6, 6, 6, 6, 7)  # of the 16 positions of a block (13.3)
# Probabilities of the bits that complete a number, by category (13.2).
_EXTRA_BITS = (
    (159,),
    (165, 145),
    (173, 148, 140),
    (176, 155, 140, 135),
    (180, 157, 141, 134, 130),
    (254, 254, 243, 230, 196, 177, 153, 140, 133, 130, 129),
)
_END, _ZERO, _ONE, _LARGER = -1, -2, -3, -4  # what a token is in the end; all but the first say the next one's context


def _places() -> tuple[list[int], list[int], bytes]:
    """Where a token (13.2) goes on after a 0 and after a 1, by place; the fixed probabilities of the places after the
    11 nodes of its tree."""
    fixed = [128, 128]
    sign_of_one, sign_of_more, first = 11, 12, 13
    after: list[int] = []
    categories = []
    for bits in _EXTRA_BITS:
        categories.append(first + len(after))
        after += [first + len(after) + number for number in range(1, len(bits))] + [sign_of_more]
        fixed += bits
    a, b, c, d, e, f = categories
    on_zero = [_END, _ZERO, sign_of_one, 4, sign_of_more, sign_of_more, 7, a, 9, c, e, _ONE, _LARGER]
    on_one = [1, 2, 3, 6, 5, sign_of_more, 8, b, 10, d, f, _ONE, _LARGER]
    return on_zero + after, on_one + after, bytes(fixed)


_ON_ZERO, _ON_ONE, _FIXED = _places()

# Of each block: its kind (13.3), and the places of what it is told by the blocks above and to the left: 4 of luma, 2
# and 2 of colour, 1 of averages. Kinds: 0 luma without its average, 1 averages, 2 colour, 3 luma.
_COLOUR = [(2, first + number % 2, first + number // 2) for first in (4, 6) for number in range(4)]
_WITH_Y2 = [(1, 8, 8), *((0, number % 4, number // 4) for number in range(16)), *_COLOUR]
_WITHOUT_Y2 = [*((3, number % 4, number // 4) for number in range(16)), *_COLOUR]
TOLD = 9
"""Numbers that a macroblock tells the next ones of its blocks."""


class Partition:
    """A part of a frame: booleans, one after the other (7.3). Beyond its end are zeros.

    The encoder's code lies `value` above the bottom of an interval that is `width` << `bits` wide.
    """

    __slots__ = ("bits", "read_bits", "size", "value", "width", "words")

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        padded = data + bytes(self.size % 2)
        self.words = chain(struct.unpack(f">{len(padded) // 2}H", padded), repeat(0))
        self.value, self.width, self.bits = next(self.words), 255, 8
        self.read_bits = 8  # after the first byte

    def flag(self, probability: int = 128) -> bool:
        """A boolean that is 0 in `probability` of 256 cases."""
        width = 1 + ((self.width - 1) * probability >> 8)
        bound = width << self.bits
        is_set: bool = self.value >= bound
        if is_set:
            self.value -= bound
            width = self.width - width
        shift = _SHIFTS[width]
        self.width = width << shift
        self.bits -= shift
        if self.bits < 0:
            self._read_on()
        return is_set

    def number(self, bits: int) -> int:
        """A number without sign, its highest bit first (8.1)."""
        number = 0
        for _ in range(bits):
            number = number << 1 | self.flag()
        return number

    def leaf(self, tree: Sequence[int], probabilities: Sequence[int]) -> int:
        """A leaf of a tree (8.1): pairs of places to go on from; the leaves stand there as what `~` makes of them."""
        place = 0
        while place >= 0:
            place = tree[place + self.flag(probabilities[place >> 1])]
        return ~place

    @property
    def is_overrun(self) -> bool:
        """Whether more was read than an encoder wrote."""
        return self._bytes_written() > self.size + _FEWER

    def ends_here(self) -> bool:
        """Whether this is where the encoder stopped: its code is the bottom of the interval. Reads on."""
        written = self._bytes_written()
        is_near = written - _FEWER <= self.size <= written + _MORE
        return is_near and not self.value and not any(islice(self.words, _MORE))

    def _bytes_written(self) -> int:
        """By libvpx, if this is the end: it adds 32 zeros, and leaves out the last 16 bits."""
        return (self.read_bits - self.bits + 32 - 16) // 8

    def _read_on(self) -> None:
        self.value = self.value << 16 | next(self.words)
        self.bits += 16
        self.read_bits += 16

    def coefficients(self, macroblocks: Iterable[int], above: list[int], nodes: Nodes) -> None:
        """A row of macroblocks (13). They are given by their flags; `above`, (TOLD * columns,), is what the row above
        tells, and then what this one does.

        All of the time goes by here, so that `flag` stands once more inside.
        """
        value, width, bits, words = self.value, self.width, self.bits, self.words
        left = [0] * TOLD
        for column, flags in enumerate(macroblocks):
            place = TOLD * column
            if not flags & IS_CODED:
                told = TOLD if flags & HAS_Y2 else TOLD - 1
                left[:told] = above[place : place + told] = [0] * told
                continue
            for kind, upper, side in _WITH_Y2 if flags & HAS_Y2 else _WITHOUT_Y2:
                positions = nodes[kind]
                first = position = int(not kind)
                probabilities = positions[position][above[place + upper] + left[side]]
                node = 0
                while True:
                    part = 1 + ((width - 1) * probabilities[node] >> 8)
                    bound = part << bits
                    if value < bound:
                        width = part
                        node = _ON_ZERO[node]
                    else:
                        value -= bound
                        width -= part
                        node = _ON_ONE[node]
                    if width < 128:
                        shift = _SHIFTS[width]
                        width <<= shift
                        bits -= shift
                        if bits < 0:
                            value = value << 16 | next(words)
                            bits += 16
                            self.read_bits += 16
                    if node < 0:
                        if node == _END:
                            break
                        position += 1
                        if position == 16:
                            break
                        probabilities = positions[position][_ZERO - node]
                        node = node == _ZERO  # no block ends after a zero
                above[place + upper] = left[side] = position > first
        self.value, self.width, self.bits = value, width, bits


def coefficient_nodes(probabilities: bytes) -> Nodes:
    """(4, 8, 3, 11) probabilities by position instead of band, with those that are the same in every frame."""
    contexts = [probabilities[start : start + 11] + _FIXED for start in range(0, len(COEFFICIENTS), 11)]
    bands = [contexts[start : start + 3] for start in range(0, len(contexts), 3)]
    return [[bands[8 * kind + band] for band in _BANDS] for kind in range(4)]
