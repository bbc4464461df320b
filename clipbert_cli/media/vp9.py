"""Which decoder looks at VP9 videos when they are checked: FFmpeg's own reads on beyond the end of damaged data in
silence, and shows what comes of it; that of libvpx says so. Their pixels are the same."""

from __future__ import annotations

import av

_LIBVPX = "libvpx-vp9"
_HIGH_PROFILE = 0x10  # of the uncompressed header's first byte (VP9 bitstream, 6.2): more than 8 bits
_KEY_MASK, _KEY = 0xCE, 0x82  # marker 2, no existing frame shown again, key frame, shown


def checking_decoder(codec: str, packet: bytes) -> str:
    """FFmpeg's name of the decoder for a video that begins with this packet. libvpx may be built for 8 bits alone."""
    is_simple = codec == "vp9" and bool(packet) and not packet[0] & _HIGH_PROFILE
    return _LIBVPX if is_simple and _LIBVPX in av.codec.codecs_available else codec


def is_one_picture(packet: bytes) -> bool:
    """Whether a packet of 8 bits holds one frame that is decoded and shown: neither several, hidden ones among them
    (VP9 bitstream, annex B: the index at the end begins and ends with the same byte), nor a frame shown again."""
    marker = packet[-1]
    index = 2 + ((marker >> 3 & 3) + 1) * ((marker & 7) + 1)
    is_several = marker & 0xE0 == 0xC0 and len(packet) >= index and packet[-index] == marker
    return not is_several and packet[0] & 0x0A == 0x02  # it is shown, and not one that was decoded before


def is_key_picture(packet: bytes) -> bool:
    """Whether a packet of 8 bits shows a key frame, which libvpx does not tell."""
    return packet[0] & _KEY_MASK == _KEY
