"""How the units of H.264 and HEVC lie in packets."""

from __future__ import annotations

from made_media import video

from clipbert_cli.media.bitstream import NalFormat
from clipbert_cli.media.container import open_video
from clipbert_cli.media.probe import probe_video


def test_hevc_configuration_of_version_0_is_read_by_its_lengths() -> None:
    options = {"x265-params": "keyint=12:log-level=none"}
    data = bytearray(video(24, codec="libx265", options=options, height=192, width=256))
    version = data.index(b"hvcC") + 4
    assert data[version] == 1
    data[version] = 0
    with open_video(bytes(data)) as opened:
        nal_format = NalFormat.of("hevc", opened.stream.codec_context.extradata or b"")
    assert nal_format == NalFormat("hevc", 4)
    assert NalFormat.of("hevc", b"\0\0\0\1\x40" + bytes(30)) == NalFormat("hevc", 0)
    info = probe_video(bytes(data)).info
    assert (len(info.pts), info.complete) == (24, True)
