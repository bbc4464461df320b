"""The size of H.264's coded pictures, which a decoder may cut before it shows them, from the stream's set-up."""

from __future__ import annotations

_BASELINE, _MAIN, _HIGH = 66, 77, 100


def coded_size(extradata: bytes) -> tuple[int, int] | None:
    """(height, width) by the first sequence parameter set of an `avcC` (ITU-T H.264, 7.3.2.1.1; ISO/IEC 14496-15,
    5.3.3.1); None for profiles other than Baseline, Main and High, and for what is rarely there: scaling lists."""
    size = int.from_bytes(extradata[6:8], "big")
    unit = extradata[9 : 8 + size].replace(b"\0\0\3", b"\0\0")  # without its first byte, and what keeps start codes out
    if not extradata[5] & 31 or len(unit) < 4 or unit[0] not in (_BASELINE, _MAIN, _HIGH):
        return None
    bits = _Bits(unit[3:])
    try:
        bits.golomb()  # which set it is
        if unit[0] == _HIGH:
            _chroma, _luma_depth, _chroma_depth = bits.golomb(), bits.golomb(), bits.golomb()
            _bypass, has_lists = bits.take(1), bits.take(1)
            if has_lists:
                return None
        bits.golomb()  # bits of frame numbers
        order = bits.golomb()
        if order == 0:
            bits.golomb()  # bits of the order
        elif order == 1:
            bits.take(1)
            for _ in range(2):
                bits.golomb()
            for _ in range(bits.golomb()):
                bits.golomb()
        _references, _gaps = bits.golomb(), bits.take(1)
        width, rows, frames_only = bits.golomb() + 1, bits.golomb() + 1, bits.take(1)
    except EOFError:
        return None
    return 16 * rows * (2 - frames_only), 16 * width


class _Bits:
    """Reads bits from the left."""

    def __init__(self, data: bytes) -> None:
        self._bits = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        """The next `count` bits.

        Raises:
            EOFError: there are not so many.
        """
        self._left -= count
        if self._left < 0:
            raise EOFError
        return self._bits >> self._left & (1 << count) - 1

    def golomb(self) -> int:
        """The next Exp-Golomb number (9.1): so many zeros, a one, and as many bits."""
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)
