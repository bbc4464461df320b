"""DALI and PyAV give the same pixels, through the same loader. What needs DALI is skipped without it."""

from __future__ import annotations

import dataclasses
import io
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from data.made_media import image, marked_frame, read_index, video

from clipbert_cli.batch import Batch, Example, Texts
from clipbert_cli.data import decoder as decoder_module
from clipbert_cli.data.annotations import group_by_media
from clipbert_cli.data.collate import Collate
from clipbert_cli.data.dataset import GroupDataset, MediaSettings, OnBadMedia
from clipbert_cli.data.decode import rgb_frames
from clipbert_cli.data.decoder import Decoder, Place, choose_decoder
from clipbert_cli.data.loader import BatchLoader
from clipbert_cli.data.nal import NalFormat
from clipbert_cli.data.order import OrderedBatches
from clipbert_cli.data.packing import pack_media
from clipbert_cli.data.pieces import EncodedClips, Piece, image_piece, takes, video_pieces
from clipbert_cli.data.probe import Kind, ProbedVideo, inspect_video
from clipbert_cli.data.sampling import ClipSampling, FrameIndices
from clipbert_cli.data.sps import coded_size
from clipbert_cli.data.store import open_media
from clipbert_cli.data.transforms import resize_pad
from clipbert_cli.data.vp9 import is_one_picture
from clipbert_cli.errors import ClipbertError, DecodeError, RecipeError

VP9: dict[str, Any] = {"codec": "libvpx-vp9", "container": "webm", "options": {"g": "12", "cpu-used": "8"}}
OPEN_GOP: dict[str, Any] = {
    "options": {"x264-params": "open-gop=1:bframes=3:b-pyramid=none:keyint=12:min-keyint=12:scenecut=0"}
}
CLIPS: FrameIndices = ((3, 17), (20, 3), (33, 47), (47, 47))
ON_CPU = Decoder("dali", "cpu", "a test")


def probed(data: bytes) -> ProbedVideo:
    found = inspect_video(data)
    assert found.packets is not None
    return found


def pieces_of(data: bytes, clips: FrameIndices, *, place: Place) -> tuple[Piece, ...]:
    known = probed(data)
    encoded = video_pieces(data, clips, info=known.info, table=known.packets, place=place)
    assert encoded is not None
    return encoded.pieces


# ---------------------------------------------------------------------------------------------- pieces, without DALI


@pytest.mark.parametrize(
    "settings",
    [
        {"options": {"g": "12", "bf": "2"}},
        {"container": "matroska", "options": {"g": "16", "bf": "0"}},
        {"codec": "libx265", "options": {"x265-params": "keyint=12:bframes=3:log-level=none"}},
        {"codec": "libx265", "options": {"x265-params": "keyint=12:min-keyint=12:open-gop=1:log-level=none"}},
        {"codec": "libvpx", "container": "webm", "options": {"g": "12", "cpu-used": "8"}},
        VP9,
    ],
)
def test_the_frames_of_pieces_are_those_of_the_clips(settings: dict[str, object]) -> None:
    pieces = pieces_of(video(48, height=144, width=192, **settings), CLIPS, place="cuda")
    found: dict[int, int] = {}
    for piece in pieces:
        assert list(piece.frames) == sorted(set(piece.frames))
        with av.open(io.BytesIO(piece.data)) as container:
            frames = [read_index(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
        for number, slots in zip(piece.frames, piece.slots, strict=True):
            found |= dict.fromkeys(slots, frames[number])
    assert found == dict(enumerate(index for clip in CLIPS for index in clip))


def test_a_piece_holds_no_more_packets_than_its_frames_need() -> None:
    data = video(48, options={"g": "12", "bf": "2"})
    (piece,) = pieces_of(data, ((17,),), place="cuda")
    with av.open(io.BytesIO(piece.data)) as container:
        assert 1 <= sum(1 for packet in container.demux(video=0) if packet.size) <= 6
    assert len(piece.data) < len(data) / 3


@pytest.mark.parametrize(
    "settings",
    [
        OPEN_GOP | {"height": 144, "width": 192},  # parameter sets reach NVDEC with IDR pictures alone
        VP9,  # 96 x 64 is too small for NVDEC
        {"height": 152, "width": 192},  # coded with padding: DALI could take the decoder of 160 rows for it
        {"height": 144, "width": 192, "options": {"x264-params": "interlaced=1"}},  # coded in 160 rows
    ],
)
def test_what_goes_wrong_on_a_gpu_in_silence_stays_with_pyav(settings: dict[str, Any]) -> None:
    data = video(48, **settings)
    known = probed(data)
    assert video_pieces(data, CLIPS, info=known.info, table=known.packets, place="cuda") is None


def test_packets_of_hidden_pictures_and_of_fields_are_known() -> None:
    shown, hidden, again = b"\x82" + bytes(9), b"\x80" + bytes(9), b"\x88"
    several = hidden + shown + b"\xc1\x0a\x0a\xc1"  # with an index at the end
    assert [is_one_picture(packet) for packet in (shown, hidden, again, several)] == [True, False, False, False]
    first, later = b"\0\0\0\4\x41\x9a\1\1", b"\0\0\0\4\x41\x5a\1\1"  # slices that begin at macroblock 0, and at 1
    assert [NalFormat("h264", 4).fields(packet) for packet in (first, first + later, first + first)] == [1, 1, 2]


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({"height": 144, "width": 192}, (144, 192)),
        ({"height": 90, "width": 132}, (96, 144)),
        ({"height": 90, "width": 132, "options": {"profile": "baseline"}}, (96, 144)),
        ({"height": 144, "width": 192, "options": {"x264-params": "interlaced=1:bframes=3"}}, (160, 192)),
        ({"height": 144, "width": 192, "options": {"x264-params": "bframes=0:keyint=1"}}, (144, 192)),
    ],
)
def test_the_size_of_coded_pictures_is_read(settings: dict[str, Any], size: tuple[int, int]) -> None:
    known = probed(video(12, **settings))
    assert known.packets is not None
    assert coded_size(known.packets.extradata) == size
    for length in range(8, len(known.packets.extradata)):  # cut short it is read as far, or says nothing
        assert coded_size(known.packets.extradata[:length]) in (None, size)
    other = bytearray(known.packets.extradata)
    other[9] = 122  # High 4:2:2
    assert coded_size(bytes(other)) is None


def test_what_dali_does_not_take_is_left_alone() -> None:
    h264 = probed(video(12))
    assert h264.packets is not None
    assert not takes(b"", h264.packets, "cpu")
    assert takes(b"", h264.packets, "cuda")
    ten_bits = probed(video(12, options={"g": "12"}, pix_fmt="yuv420p10le"))
    assert ten_bits.packets is not None
    assert not takes(b"", ten_bits.packets, "cuda")
    for settings, is_taken in ((VP9, True), (VP9 | {"pix_fmt": "yuv444p"}, False), (VP9 | {"codec": "mpeg4"}, False)):
        data = video(12, **(settings | ({"container": "avi", "options": {}} if "mpeg4" in settings.values() else {})))
        known = probed(data)
        assert known.packets is not None
        assert takes(data, known.packets, "cuda") is is_taken


def test_hidden_frames_are_left_to_pyav() -> None:
    data = video(24, **VP9)
    known = probed(data)
    assert known.packets is not None
    hides_one = dataclasses.replace(known.packets, shows=np.array([0, -1, *range(1, 23)]))
    options = {"info": known.info, "place": "cpu"}
    assert video_pieces(data, ((20,),), table=hides_one, **options) is not None  # from an entry behind it
    assert video_pieces(data, ((20,), (5,)), table=hides_one, **options) is None


def test_bytes_that_changed_since_they_were_packed_do_not_become_pieces() -> None:
    data = bytearray(video(24, **VP9))
    known = probed(bytes(data))
    assert known.packets is not None
    data[int(known.packets.offsets[3]) + 2] ^= 1
    options = {"info": known.info, "table": known.packets, "place": "cpu"}
    assert video_pieces(bytes(data), ((2,),), **options) is not None
    with pytest.raises(DecodeError, match="not those that were packed"):
        video_pieces(bytes(data), ((3,),), **options)


# ---------------------------------------------------------------------------------------------- the choice


def test_auto_is_pyav_without_a_gpu_and_says_so() -> None:
    chosen = choose_decoder("auto", torch.device("cpu"))
    assert (chosen.name, chosen.colours) == ("pyav", "original")
    assert chosen.describe() == "pyav on cpu (data.decoder is auto: no GPU)"


def test_asking_for_dali_where_it_is_not_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_module, "_load_dali", lambda: ("", "NVIDIA DALI is not installed"))
    with pytest.raises(RecipeError, match=r"data\.decoder is dali: NVIDIA DALI is not installed") as caught:
        choose_decoder("dali", torch.device("cpu"))
    assert "clipbert[dali-cuda13]" in str(caught.value.hint)
    assert choose_decoder("auto", torch.device("cuda:0")).name == "pyav"


@pytest.mark.dali
def test_dali_is_chosen_where_it_is_asked_for_and_where_a_gpu_is() -> None:
    assert (
        choose_decoder("dali", torch.device("cpu")).describe().startswith("dali on cpu (data.decoder is dali: DALI 2")
    )
    chosen = choose_decoder("auto", torch.device("cuda:1"))
    assert (chosen.name, chosen.device, chosen.place, chosen.colours) == ("dali", "cuda:1", "cuda", "dali")


# ---------------------------------------------------------------------------------------------- pixels


def decoded(data: bytes, clips: FrameIndices, size: int, dtype: torch.dtype, device: str = "cpu") -> torch.Tensor:
    """(K, T, 3, S, S) by DALI."""
    from clipbert_cli.data.dali import DaliDecoder

    known = probed(data)
    decoder = Decoder("dali", device)
    encoded = video_pieces(data, clips, info=known.info, table=known.packets, place=decoder.place)
    assert encoded is not None
    return DaliDecoder(decoder, kind="video", frame_size=size, dtype=dtype).decode([encoded])[0].cpu()


def expected(data: bytes, clips: FrameIndices, size: int, dtype: torch.dtype) -> torch.Tensor:
    """The same by PyAV and torch."""
    known = probed(data)
    wanted = {index for clip in clips for index in clip}
    frames = {
        index: torch.from_numpy(frame.copy())  # (h, w, 3)
        for index, frame in rgb_frames(data, wanted, info=known.info, packets=known.packets, colours="dali")
    }
    canvas = torch.zeros((len(clips), len(clips[0]), 3, size, size), dtype=dtype)
    for k, clip in enumerate(clips):
        for t, index in enumerate(clip):
            canvas[k, t] = resize_pad(frames[index][None], size, dtype=dtype)[0]
    return canvas


@pytest.mark.dali
@pytest.mark.parametrize(
    ("codec", "height", "width"), [("libvpx-vp9", 64, 96), ("libvpx-vp9", 146, 98), ("libvpx", 66, 98)]
)
def test_video_on_cpu_is_pyavs_exactly(codec: str, height: int, width: int) -> None:
    data = video(48, **(VP9 | {"codec": codec, "height": height, "width": width}))
    native = max(height, width)  # nothing is resized
    assert torch.equal(decoded(data, CLIPS, native, torch.uint8), expected(data, CLIPS, native, torch.uint8))
    for size in (224, 72):
        for dtype in (torch.float32, torch.uint8):
            assert torch.equal(decoded(data, CLIPS, size, dtype), expected(data, CLIPS, size, dtype))


@pytest.mark.dali
@pytest.mark.parametrize(
    "options", [{}, {"subsampling": 0}, {"progressive": True}, {"grey": True}, {"exif": b"turned"}]
)
def test_jpeg_on_cpu_is_pillows_exactly(options: dict[str, object]) -> None:
    from PIL import Image

    from clipbert_cli.data.dali import DaliDecoder
    from clipbert_cli.data.images import decode_image

    picture = Image.fromarray(marked_frame(77, 90, 130))
    options = dict(options)
    if options.pop("grey", False):
        picture = picture.convert("L")
    if options.get("exif"):
        exif = Image.Exif()
        exif[0x0112] = 6
        options["exif"] = exif
    data = image(picture, "jpeg", **options)
    pixels = decode_image(data)[None]  # (1, 90, 130, 3)
    for size, dtype in ((130, torch.uint8), (448, torch.float32), (448, torch.uint8)):
        dali = DaliDecoder(ON_CPU, kind="image", frame_size=size, dtype=dtype)
        found = dali.decode([image_piece(data, height=90, width=130)])[0, 0]
        assert torch.equal(found, resize_pad(pixels, size, dtype=dtype))


@pytest.mark.dali
def test_a_bad_piece_is_reported_and_the_decoder_works_on() -> None:
    from clipbert_cli.data.dali import DaliDecoder

    good = video_pieces_of(video(48, **VP9))
    broken = bytearray(good.pieces[0].data)
    broken[len(broken) // 2 :] = bytes(byte ^ 0x5A for byte in broken[len(broken) // 2 :])
    bad = EncodedClips((Piece(bytes(broken), good.pieces[0].frames, good.pieces[0].slots),), 1, 1, 64, 96)
    beyond = EncodedClips((Piece(good.pieces[0].data, (40,), ((0,),)),), 1, 1, 64, 96)
    dali = DaliDecoder(ON_CPU, kind="video", frame_size=96)
    before = dali.decode([good])
    for wrong in (bad, beyond, bad):
        with pytest.raises(DecodeError, match="DALI cannot decode it"):
            dali.decode([good, wrong])
        assert torch.equal(dali.decode([good]), before)
    assert read_index(before[0, 0, 0].permute(1, 2, 0).numpy()) == 20


def video_pieces_of(data: bytes) -> EncodedClips:
    known = probed(data)
    assert known.packets is not None
    encoded = video_pieces(data, ((20,),), info=known.info, table=known.packets, place="cpu")
    assert encoded is not None
    return encoded


# ---------------------------------------------------------------------------------------------- through the loader


def no_texts(examples: Sequence[Example]) -> Texts:
    return Texts(torch.zeros((len(examples), 1), dtype=torch.long), torch.ones((len(examples), 1), dtype=torch.bool))


def batches(
    store: Path,
    kind: Kind,
    decoder: Decoder,
    *,
    on_bad_media: OnBadMedia = "error",
    pyav_only: bool = False,
    workers: int = 0,
) -> list[Batch]:
    source = open_media(store, kind=kind)
    groups = group_by_media([Example(name, name, ("?",)) for name in source], max_examples=1)
    sampling = ClipSampling("random" if kind == "video" else "start", 3 if kind == "video" else 1, 2, 2.0)
    settings = MediaSettings(sampling, 96, decoder=decoder, pyav_only=pyav_only)
    data = GroupDataset(groups, source, settings, seed=7, on_bad_media=on_bad_media)
    order = OrderedBatches(len(groups), batch_size=4)
    return list(BatchLoader(data, Collate(no_texts), order, workers=workers))


def pack_videos(folder: Path, **size: int) -> Path:
    """Six videos: VP9, which DALI decodes on CPU, and H.264 in MP4 and AVI, which it does not."""
    for number in range(4):
        (folder / f"a{number}.webm").write_bytes(video(40 + number, **VP9, **size))
    (folder / "b.mp4").write_bytes(video(40, **size))
    (folder / "c.avi").write_bytes(video(40, container="avi", **size))
    pack_media([folder], folder / "store")
    return folder / "store"


@pytest.fixture(scope="module")
def some_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_videos(tmp_path_factory.mktemp("videos"))


@pytest.mark.dali
@pytest.mark.parametrize("workers", [0, 1])
def test_batches_are_those_of_pyav(some_videos: Path, workers: int) -> None:
    by_dali = batches(some_videos, "video", ON_CPU, workers=workers)
    by_pyav = batches(some_videos, "video", ON_CPU, pyav_only=True)
    assert [batch.media_ids for batch in by_dali] == [("a0", "a1", "a2", "a3"), ("b", "c")]
    for one, other in zip(by_dali, by_pyav, strict=True):
        assert one.frames.shape == (len(one.media_ids), 3, 2, 3, 96, 96)
        assert torch.equal(one.frames, other.frames)  # 96 wide: nothing is resized
        assert one.examples == other.examples


@pytest.mark.dali
@pytest.mark.parametrize(("policy", "left"), [("replace", 6), ("skip", 5), ("report", 5)])
def test_media_that_neither_decodes_follow_the_policy(
    some_videos: Path, tmp_path: Path, policy: OnBadMedia, left: int, caplog: pytest.LogCaptureFixture
) -> None:
    store = shutil.copytree(some_videos, tmp_path / "store")
    data = (store / "data.mdb").read_bytes()
    whole = open_media(some_videos, kind="video").read("a1")
    place = data.find(whole[:400])
    assert place > 0
    changed = data[:place] + bytes(len(whole)) + data[place + len(whole) :]
    (store / "data.mdb").write_bytes(changed)
    options = {"on_bad_media": policy}
    by_dali = batches(store, "video", ON_CPU, **options)
    by_pyav = batches(store, "video", ON_CPU, pyav_only=True, **options)
    assert sum(len(batch.media_ids) for batch in by_dali) == left
    for one, other in zip(by_dali, by_pyav, strict=True):
        assert one.media_ids == other.media_ids
        assert torch.equal(one.frames, other.frames)
        assert [group.media_id for group, _ in one.failed] == (["a1"] if one.failed else [])
    assert "not those that were packed" in caplog.text


@pytest.mark.dali
def test_what_dali_fails_on_pyav_decodes(
    some_videos: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from clipbert_cli.data import pieces

    write = pieces.write_mp4
    written = 0

    def write_a_broken_one(*arguments: Any, **options: Any) -> bytes:
        nonlocal written
        written += 1
        file = write(*arguments, **options)
        return file[: len(file) - 40] + bytes(40) if written == 2 else file

    monkeypatch.setattr(pieces, "write_mp4", write_a_broken_one)
    by_dali = batches(some_videos, "video", ON_CPU)
    by_pyav = batches(some_videos, "video", ON_CPU, pyav_only=True)
    for one, other in zip(by_dali, by_pyav, strict=True):
        assert one.media_ids == other.media_ids
        assert torch.equal(one.frames, other.frames)
    assert caplog.text.count("PyAV is asked instead") == 1


@pytest.mark.dali
def test_a_dali_that_decodes_nothing_stops_the_run(some_videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipbert_cli.data.pieces.write_mp4", lambda *_, **__: b"no file at all")
    monkeypatch.setattr("clipbert_cli.data.decoding._MOST_AT_FIRST", 3)
    with pytest.raises(ClipbertError, match="decoded none of the first 3 media") as caught:
        batches(some_videos, "video", ON_CPU)
    assert "data.decoder=pyav" in str(caught.value.hint)


@pytest.mark.dali
def test_pictures_that_are_jpeg_go_through_dali(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.jpg").write_bytes(image(marked_frame(number), "jpeg"))
    (folder / "3.png").write_bytes(image(marked_frame(3), "png"))
    pack_media([folder], tmp_path / "store", kind="image")
    (by_dali,) = batches(tmp_path / "store", "image", ON_CPU)
    (by_pyav,) = batches(tmp_path / "store", "image", ON_CPU, pyav_only=True)
    assert torch.equal(by_dali.frames, by_pyav.frames)
    assert [read_index(frame[0, 0].permute(1, 2, 0).numpy()) for frame in by_dali.frames] == [0, 1, 2, 3]


# ---------------------------------------------------------------------------------------------- on a GPU


ON_GPU: dict[str, dict[str, Any]] = {
    "h264 with B-frames": {"options": {"g": "12", "bf": "2", "crf": "12"}},
    "hevc": {"codec": "libx265", "options": {"x265-params": "keyint=12:bframes=3:log-level=none"}},
    "vp9": VP9,
}


@pytest.mark.cuda
@pytest.mark.dali
@pytest.mark.parametrize("name", ON_GPU)
def test_video_on_a_gpu_is_close_to_pyavs(name: str) -> None:
    data = video(48, height=240, width=320, **ON_GPU[name])
    for size in (320, 448):
        found = decoded(data, CLIPS, size, torch.uint8, "cuda:0")
        assert_close_pixels(found, expected(data, CLIPS, size, torch.uint8))


@pytest.mark.cuda
@pytest.mark.dali
def test_a_corrupt_batch_on_a_gpu_is_done_by_pyav(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from clipbert_cli.data import pieces

    (tmp_path / "d.mp4").write_bytes(video(40, height=144, width=192, **OPEN_GOP))  # PyAV's, in the same colours
    some_videos = pack_videos(tmp_path, height=144, width=192)  # NVDEC takes no smaller VP9 than 128 x 128
    write, written = pieces.write_mp4, 0

    def write_a_broken_one(*arguments: Any, **options: Any) -> bytes:
        nonlocal written
        written += 1
        file = write(*arguments, **options)
        return b"no file at all" if written == 2 else file

    monkeypatch.setattr(pieces, "write_mp4", write_a_broken_one)
    gpu = Decoder("dali", "cuda:0", "a test")
    for one, other in zip(
        batches(some_videos, "video", gpu), batches(some_videos, "video", gpu, pyav_only=True), strict=True
    ):
        assert one.frames.is_cuda
        assert one.media_ids == other.media_ids
        assert_close_pixels(one.frames.cpu(), other.frames)
    assert caplog.text.count("PyAV is asked instead") == 1


@pytest.mark.cuda
@pytest.mark.dali
def test_jpeg_on_a_gpu_is_close_to_pillows() -> None:
    from clipbert_cli.data.dali import DaliDecoder
    from clipbert_cli.data.images import decode_image

    data = image(marked_frame(77, 90, 130), "jpeg")
    dali = DaliDecoder(Decoder("dali", "cuda:0"), kind="image", frame_size=130)
    found = dali.decode([image_piece(data, height=90, width=130)])[0, 0, 0].cpu()
    assert_close_pixels(found[:, :90], torch.from_numpy(decode_image(data)).permute(2, 0, 1))


def assert_close_pixels(found: torch.Tensor, wanted: torch.Tensor) -> None:
    difference = (found.float() - wanted.float()).abs()
    assert difference.mean() <= 0.5
    assert np.percentile(difference.numpy(), 99) <= 3
