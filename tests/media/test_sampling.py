"""Frame choice: the golden numbers, and what follows from the rule."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from goldens import golden_folder
from made_media import info_of, read_index, video

from clipbert_cli.errors import DecodeError
from clipbert_cli.media.frames import decode_frames
from clipbert_cli.media.packets import PacketTable
from clipbert_cli.media.probe import probe_video
from clipbert_cli.media.sampling import (
    _SINGLE_CLIP,
    ClipSampling,
    Timeline,
    _positions,
    header_frames,
    safeguard_duration,
    select,
)
from clipbert_cli.store.records import packet_table, packets_record, video_info, video_record
from clipbert_cli.types import VideoInfo

INFORMATIVE = {"bad_zeroed_middle.mp4"}  # depends on the decoder's error handling (golden/README.md, section 5)


def golden_videos() -> dict[str, Any]:
    return json.loads((golden_folder() / "sampling/sampling.json").read_text())["videos"]


def or_none(choose: Any) -> Any:
    try:
        return choose()
    except DecodeError:
        return None


def as_lists(info: VideoInfo | None, combo: str) -> dict[str, Any]:
    """`selected[combo]` of the golden data, for the choices that this project makes."""
    fps, num_frames = combo.removeprefix("fps").split("_frm")
    how: dict[str, Any] = {"num_frames": int(num_frames), "fps": float(fps)}

    def at(position: float, of: int, sampling: ClipSampling, *, safeguard: bool = False) -> list[int] | None:
        if info is None:
            return None
        return or_none(
            lambda: list(
                header_frames(
                    info,
                    sampling,
                    at=position,
                    of=of,
                    duration=safeguard_duration(info) if safeguard else info.duration,
                )
            )
        )

    chosen: dict[str, Any] = {}
    for strategy, (position, of) in _SINGLE_CLIP.items():
        chosen[strategy] = at(position, of, ClipSampling(strategy, **how))
    chosen["rand"] = lambda u: at(float(u), 1, ClipSampling("random", **how))
    for name, safeguard in (("clips_plain", False), ("clips_safeguard", True)):
        chosen[name] = lambda count, safeguard=safeguard: [
            at(clip, count, ClipSampling("clips", count, safeguard=safeguard, **how), safeguard=safeguard)
            for clip in range(count)
        ]
    return chosen


def mistakes(info: VideoInfo | None, selected: dict[str, Any]) -> list[str]:
    wrong = []
    for combo, expected in selected.items():
        ours = as_lists(info, combo)
        for leaf, value in expected.items():
            if leaf == "rand":
                pairs = [(f"rand {u}", ours["rand"](u), frames) for u, frames in value.items()]
            elif leaf.startswith("clips"):
                pairs = [(f"{leaf} {n}", ours[leaf](int(n)), v) for n, v in value.items() if n.isdigit()]
                if leaf == "clips_safeguard":
                    duration = None if info is None else or_none(lambda: safeguard_duration(info))
                    pairs += [(f"{leaf} {n}", duration, v) for n, v in value.items() if not n.isdigit()]
            else:
                pairs = [(leaf, ours[leaf], value)]
            wrong += [f"{combo} {what}: {got} instead of {want}" for what, got, want in pairs if got != want]
    return wrong


def stored_packets(data: bytes) -> PacketTable | None:
    """The packet table as a store gives it back."""
    packets = probe_video(data).packets
    return packets and packet_table(packets_record(packets))


@pytest.mark.golden
@pytest.mark.parametrize("name", [name for name in golden_videos() if name not in INFORMATIVE])
def test_frames_are_those_of_the_original(name: str) -> None:
    golden = golden_videos()[name]
    data = (golden_folder() / "sampling/videos" / name).read_bytes()
    try:
        info = info_of(data)
    except DecodeError:
        info = None
    assert mistakes(info, golden["selected"]) == []
    container = golden["container"]
    assert (info is not None) == bool(container.get("decoded_pts"))
    if info is None:
        return
    assert list(info.pts) == container["decoded_pts"]
    # What pack stores gives the same choice, and the chosen frames are the wanted ones by the index that they show.
    assert video_info(video_record(probe_video(data))) == info
    for packets in (None, stored_packets(data)):
        frames = decode_frames(data, (tuple(range(len(info.pts))),), info=info, packets=packets)[0]
        assert [read_index(frame) for frame in frames] == container["decoded_index"]


@pytest.mark.golden
def test_every_golden_clip_is_decoded_to_the_frames_it_names() -> None:
    checked = 0
    for name, golden in golden_videos().items():
        if golden["group"] == "broken":
            continue
        data = (golden_folder() / "sampling/videos" / name).read_bytes()
        info, packets = info_of(data), stored_packets(data)
        for combo in golden["selected"].values():
            for clips in combo["clips_safeguard"].values():
                if isinstance(clips, list) and clips and None not in clips and isinstance(clips[0], list):
                    last = clips[-3:]
                    for way in (None, packets):
                        frames = decode_frames(data, tuple(map(tuple, last)), info=info, packets=way)
                        assert [[read_index(frame) for frame in clip] for clip in frames] == last
                    checked += 1
    assert checked


ENCODERS = {
    "libx264": {"bf": "2", "crf": "30"},
    "libx265": {"x265-params": "log-level=none"},
    "libsvtav1": {"preset": "12"},
    "libvpx": {"cpu-used": "8"},
    "libvpx-vp9": {"cpu-used": "8"},
}


def documented_choices() -> list[list[str]]:
    """The rows of the table in docs/differences.md: file, rate, frames, and the clips of both rules."""
    page = (Path(__file__).parents[2] / "docs/differences.md").read_text()
    table = page.split("| `presentation` |\n")[1].splitlines()[1:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table]


@pytest.mark.parametrize("row", documented_choices(), ids=lambda row: f"{row[0]} {row[1]}")
def test_both_rules_choose_the_documented_frames_of_a_constant_rate(row: list[str]) -> None:
    (container, codec), rate, frames = row[0].split(", "), Fraction(row[1]), int(row[2])
    form = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    options = ENCODERS.get(codec, {})
    info = info_of(video(frames, container=container, codec=codec, rate=rate, options=options, pix_fmt=form))
    chosen = {}
    for times, documented in (("header", row[3]), ("presentation", row[4])):
        chosen[times] = select(info, ClipSampling("clips", 4, num_frames=3, fps=2.0, times=times))
        assert ", ".join(" ".join(map(str, clip)) for clip in chosen[times]) == documented
    assert np.abs(np.array(chosen["header"]) - np.array(chosen["presentation"])).max() <= 1


def test_there_are_twenty_documented_files() -> None:
    assert len(documented_choices()) == 20


def test_positions_equal_the_linspace_of_torch() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5000):
        first = float(rng.choice([0, 1, 100, 3000]) * rng.random())
        window = float(rng.choice([0.5, 1, 2, 16]) * rng.choice([24, 25, 30000 / 1001, 100 / 7]))
        count, available = int(rng.integers(1, 33)), int(rng.choice([1, 3, 40, 500]))
        expected = torch.linspace(first, first + window - 1, count).clamp(0, available - 1).long().tolist()
        assert list(_positions(first, first + window - 1, count, available)) == expected


def constant_rate(frames: int = 90, **changes: Any) -> VideoInfo:
    fields = {
        "width": 96,
        "height": 64,
        "num_frames": frames,
        "duration": frames * 512,
        "average_rate": Fraction(30),
        "time_base": Fraction(1, 15360),
        "pts": tuple(range(0, frames * 512, 512)),
    }
    return VideoInfo(**fields | changes)


def test_random_clips_depend_on_the_generator_alone() -> None:
    sampling = ClipSampling("random", 8)
    first, again, other = (
        select(constant_rate(), sampling, np.random.default_rng(seed)) for seed in ((1, 0, 5), (1, 0, 5), (1, 1, 5))
    )
    assert first == again != other
    assert len(first) == 8
    assert all(clip[1] - clip[0] == 29 and clip[1] < 90 for clip in first)


def test_random_clips_cost_one_draw_each() -> None:
    rng, reference = np.random.default_rng(3), np.random.default_rng(3)
    select(constant_rate(), ClipSampling("random", 5), rng)
    reference.random(5)
    assert rng.random() == reference.random()


def test_random_sampling_without_a_generator_is_refused() -> None:
    with pytest.raises(ValueError, match="generator"):
        select(constant_rate(), ClipSampling("random"))


def test_a_clip_longer_than_the_video_repeats_its_last_frame() -> None:
    assert select(constant_rate(10), ClipSampling("start", num_frames=4, fps=2)) == ((0, 9, 9, 9),)


def test_one_frame_serves_every_clip() -> None:
    assert select(constant_rate(1), ClipSampling("clips", 4)) == ((0, 0),) * 4


def test_the_safeguard_corrects_a_duration_that_is_too_long() -> None:
    info = constant_rate(duration=3 * 90 * 512)
    assert safeguard_duration(info) == 89 * 512
    plain, safe = (ClipSampling("clips", 4, safeguard=safeguard, times="header") for safeguard in (False, True))
    with pytest.raises(DecodeError, match="ends before"):
        select(info, plain)
    assert select(info, safe)[-1][-1] <= 89


def test_the_safeguard_keeps_a_duration_that_is_nearly_right() -> None:
    info = constant_rate(duration=100 * 512)
    assert safeguard_duration(info) == 100 * 512


@pytest.mark.parametrize(
    ("changes", "strategy", "reason"),
    [
        ({"average_rate": None}, "start", "no average frame rate"),
        ({"num_frames": 0}, "start", "no frame count"),
        ({"num_frames": 0}, "uniform", "no frame count"),
        ({"complete": False, "duration": None}, "start", "needs all frames"),
        ({"complete": False}, "uniform", "decoding fails after frame 90"),
        ({"pts": ()}, "start", "ends before"),
        ({"pts": (), "duration": None}, "start", "no frames"),
    ],
)
def test_what_gives_no_clips_by_the_header_rule_says_why(changes: dict[str, Any], strategy: Any, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        header_frames(constant_rate(**changes), ClipSampling(strategy), at=0, of=1)


@pytest.mark.parametrize(
    ("changes", "strategy", "reason"),
    [
        ({"complete": False, "duration": None}, "start", "how long the whole video is"),
        ({"complete": False, "duration": 100 * 512}, "uniform", "decoding fails after frame 90; a wanted clip"),
        ({"pts": ()}, "start", "no frames"),
    ],
)
def test_what_gives_no_clips_by_true_times_says_why(changes: dict[str, Any], strategy: Any, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        select(constant_rate(**changes), ClipSampling(strategy))


@pytest.mark.parametrize("times", ["header", "presentation"])
def test_a_damaged_tail_fails_only_the_clips_that_need_it(times: Any) -> None:
    info = constant_rate(num_frames=200, duration=200 * 512, complete=False)
    assert select(info, ClipSampling("start", times=times)) == ((0, 29),)
    with pytest.raises(DecodeError, match="after frame 90 of 200; a wanted clip"):
        select(info, ClipSampling("end", times=times))


def test_the_safeguard_needs_the_whole_video() -> None:
    info = constant_rate(num_frames=200, duration=200 * 512, complete=False)
    with pytest.raises(DecodeError, match="whole video"):
        select(info, ClipSampling("clips", 1, safeguard=True, times="header"))


@pytest.mark.parametrize(
    "changes",
    [{"num_frames": 0}, {"average_rate": None}, {"average_rate": None, "duration": None, "num_frames": 0}],
    ids=["no count", "no rate", "nothing"],
)
@pytest.mark.parametrize("times", ["header", "presentation"])
def test_a_header_that_lacks_a_value_gives_the_clips_of_true_times(changes: dict[str, Any], times: Any) -> None:
    sampling = ClipSampling("clips", 4, times=times, safeguard=True)
    whole = select(constant_rate(), ClipSampling("clips", 4))
    assert select(constant_rate(**changes), sampling) == whole == ((0, 29), (15, 44), (30, 59), (45, 74))


RATES = [Fraction(10), Fraction(24), Fraction(25), Fraction(30000, 1001), Fraction(60)]
# Units per second of MP4 by FFmpeg, of Matroska and of MPEG-TS; in AVI a unit is a frame.
UNITS = {"mp4": 15360, "mkv": 1000, "ts": 90000, "avi": None}
TABLE = [
    ("start", 1, 2, 2.0),
    ("middle", 1, 2, 2.0),
    ("end", 1, 4, 1.0),
    ("clips", 16, 2, 2.0),
    ("clips", 3, 2, 4.0),
    ("uniform", 1, 8, 2.0),
]


@pytest.mark.parametrize("rate", RATES, ids=str)
@pytest.mark.parametrize("container", UNITS)
def test_both_rules_choose_the_same_frames_of_a_constant_rate_but_for_rounding(container: str, rate: Fraction) -> None:
    """A table of 20 files of 8 s, shown with `pytest -s`: how many of the chosen frames differ, each by one place."""
    units = UNITS[container]
    unit = 1 / rate if units is None else Fraction(1, units)
    count = int(8 * rate)
    pts = tuple(round(index / rate / unit) for index in range(count))
    info = VideoInfo(96, 64, count, round(count / rate / unit), rate, unit, pts)
    header, true = (
        np.concatenate([np.ravel(select(info, ClipSampling(*row, times=times))) for row in TABLE])
        for times in ("header", "presentation")
    )
    print(f"{container:4} {rate!s:>10} fps: {(header != true).sum():2} of {len(header)} frames differ")
    assert np.abs(header - true).max() <= 1
    # Where a unit is a whole frame or nearly so, the header rule rounds the beginning of a window down, and true times
    # round it up.
    if container in ("mp4", "ts"):
        assert (header != true).mean() <= 0.1


def times_of(seconds: list[float], **changes: Any) -> VideoInfo:
    pts = tuple(round(each * 1000) for each in seconds)
    return constant_rate(
        **{"num_frames": len(pts), "duration": pts[-1] + 40, "average_rate": Fraction(25), "pts": pts}
        | {"time_base": Fraction(1, 1000)}
        | changes
    )


@pytest.mark.parametrize("start", [0.48, 5.0, 3600.0])
def test_clips_of_a_late_start_begin_at_the_first_frame(start: float) -> None:
    early = select(times_of([k / 25 for k in range(75)]), ClipSampling("clips", 4))
    assert select(times_of([start + k / 25 for k in range(75)]), ClipSampling("clips", 4)) == early
    assert len({frame for clip in early for frame in clip}) == 8


def test_a_clip_inside_a_pause_shows_the_frame_that_stands_still() -> None:
    info = times_of([*(k / 25 for k in range(30)), *(20 + k / 25 for k in range(30))])
    clips = select(info, ClipSampling("clips", 4))
    assert clips[0] == (0, 24)
    assert clips[1:3] == ((29, 29), (29, 29))
    assert select(info, ClipSampling("uniform", num_frames=3)) == ((0, 29, 59),)


def test_frames_of_a_variable_rate_are_chosen_by_time() -> None:
    info = times_of([*(k / 25 for k in range(50)), *(2 + k for k in range(10))])
    assert select(info, ClipSampling("uniform", num_frames=4)) == ((0, 51, 55, 59),)


@pytest.mark.parametrize(
    ("seconds", "milliseconds"),
    [
        ([0, 0.04, 5], 40),
        ([0, 5, 5.04], 40),
        ([0, 0.04, 0.08, 1, 2], 40),
        ([0, 0.01, 100, 100.02, 3600], 20),
        ([0, 0.001, 1e9], 1),
    ],
)
def test_a_frame_lasts_as_long_as_a_usual_gap_even_where_no_gap_is_near_the_median(
    seconds: list[float], milliseconds: float
) -> None:
    assert Timeline.of(times_of(seconds)).step == milliseconds
    assert {0, len(seconds) - 1} <= set(select(times_of(seconds), ClipSampling("uniform", num_frames=2))[0])


@pytest.mark.parametrize(
    "seconds",
    [
        [0, 0.08, 0.08, 0.08, 0.2, 0.2, 0.24],
        [0, 0, 0.08, 0.08, 0.16, 0.16, 0.24],
        [0, 0.04, 0.08, 0.12, 0.12, 0.12, 0.12],
    ],
    ids=["avi with B frames", "pairs", "joined"],
)
def test_frames_that_state_the_same_time_are_spread(seconds: list[float]) -> None:
    times = Timeline.of(times_of(seconds)).times
    assert (np.diff(times) > 0).all()
    assert np.allclose(times, np.arange(7) * 40, atol=45)
    assert set(select(times_of(seconds), ClipSampling("uniform", num_frames=13))[0]) == set(range(7))


def test_the_only_frame_of_a_video_fills_every_clip() -> None:
    for changes in ({}, {"average_rate": None, "duration": None, "num_frames": 0}):
        assert select(times_of([3.0], **changes), ClipSampling("clips", 2)) == ((0, 0), (0, 0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strategy": "best"}, "strategy is 'best'"),
        ({"strategy": "clips", "num_clips": 0}, "num_clips is 0"),
        ({"strategy": "clips", "num_frames": 0}, "num_frames is 0"),
        ({"strategy": "clips", "fps": 0}, "fps is 0"),
        ({"strategy": "middle", "num_clips": 4}, "the same clip every time"),
    ],
)
def test_impossible_sampling_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClipSampling(**arguments)
