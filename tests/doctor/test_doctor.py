"""What `clipbert doctor` finds on this machine and on worse ones."""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import typer
from forking import ROOT, ForkedPopen
from http_site import Site
from running import Clipbert, ClipbertProcess

from clipbert_cli.commands.doctor import doctor
from clipbert_cli.doctor import devices, examine, machine, trials
from clipbert_cli.doctor.devices import examine_devices
from clipbert_cli.doctor.findings import Finding
from clipbert_cli.doctor.machine import examine_machine
from clipbert_cli.media.dali.pipeline import DaliDecoder

CPU = torch.device("cpu")


def found(findings: Any, part: str) -> Finding:
    (finding,) = [each for each in findings if each.part == part]
    return finding


def test_all_is_examined_here_and_nothing_is_broken(
    clipbert: Clipbert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", ForkedPopen)
    done = clipbert("doctor", "--json", cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert not result["is_broken"]
    by_part = {each["part"]: each for each in result["findings"]}
    assert by_part["libraries"]["value"].startswith(f"torch {version('torch')}")
    assert by_part["precision"]["value"].startswith("fp32" if not torch.cuda.is_available() else "")
    assert {f"decoding {codec}" for codec in ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "jpeg")} <= by_part.keys()
    assert {"step in fp32", "step in bf16", "step in fp16"} <= by_part.keys()
    assert by_part["processes"]["state"] == "ok"
    assert not list(tmp_path.iterdir())


def test_it_runs_with_64_open_files_and_says_so(clipbert_process: ClipbertProcess, tmp_path: Path) -> None:
    lower = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))"
    process = clipbert_process("doctor", prelude=lower, cwd=tmp_path)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "broken: open files: loading processes need 512 or more; ask for a higher limit, or data.workers=0" in stdout
    assert "Traceback" not in stderr


@pytest.mark.parametrize(
    ("soft", "hard", "advice"),
    [(64, 64, "data.workers=0"), (256, 1_048_576, "ulimit -n 4096"), (256, 1024, "ulimit -n 1024")],
)
def test_a_low_limit_of_open_files_is_broken(
    soft: int, hard: int, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (soft, hard))
    finding = found(examine_machine(online=False), "open files")
    assert finding.state == "broken"
    assert advice in finding.advice


@pytest.mark.parametrize(("free", "state"), [(64 << 20, "broken"), (500 << 20, "broken"), (8 << 30, "ok")])
def test_little_shared_memory_is_broken(free: int, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(total=free, free=free))
    finding = found(examine_machine(online=False), "shared memory")
    assert finding.state == state
    assert state == "ok" or "--shm-size" in finding.advice


@pytest.mark.parametrize("free", [0, 10**6, 2 * 10**9])
def test_a_disk_without_room_for_a_checkpoint_is_broken(free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=free))
    for part in ("runs", "downloads"):
        assert found(examine_machine(online=False), part).state == "broken"


def test_one_core_of_many_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "available_cores", lambda: 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    finding = found(examine_machine(online=False), "cores")
    assert finding.verdict().startswith("slower than it could be: cores: decoding and training share one core; ")


def test_the_hub_is_asked_only_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site()
    try:
        site.add("/", b"here")
        monkeypatch.setenv("HF_ENDPOINT", site.url)
        assert not [each for each in examine_machine(online=False) if each.part == "network"]
        assert found(examine_machine(online=True), "network").state == "ok"
    finally:
        site.close()
    for address in (site.url, "http://no-such-host.invalid", "http://[::1"):
        monkeypatch.setenv("HF_ENDPOINT", address)
        finding = found(examine_machine(online=True), "network")
        assert finding.state == "broken"
        assert "HTTPS_PROXY" in finding.advice


NVIDIA_SMI = """#!/bin/sh
case "$1" in
-L) echo "GPU 0: NVIDIA H100 (UUID: GPU-1)"
    echo "  MIG 1g.10gb     Device  0: (UUID: MIG-2)"
    echo "  MIG 2g.20gb     Device  1: (UUID: MIG-3)" ;;
*) echo 580.65.06 ;;
esac
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="this torch can use the GPU")
@pytest.mark.parametrize(
    ("script", "broken"),
    [
        (NVIDIA_SMI, "torch finds no usable GPU" if torch.version.cuda else "this torch cannot compute on GPUs"),
        ("#!/bin/sh\necho no driver >&2; exit 9\n", None),
    ],
    ids=["divided GPU", "failing driver"],
)
def test_a_gpu_that_torch_cannot_use_is_broken(
    script: str, broken: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nvidia-smi").write_text(script)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    findings = list(examine_devices(CPU))
    assert found(findings, "driver").problem == (broken or "")
    if broken:
        assert "580.65.06" in found(findings, "driver").value
        assert "CUDA 13 needs driver 580" in found(findings, "driver").advice
        assert found(findings, "MIG").value == "1g.10gb (device 0), 2g.20gb (device 1)"


@pytest.mark.parametrize(
    ("cores", "gpus", "advice"), [(1, 0, 1), (2, 0, 2), (3, 1, 3), (16, 8, 2), (4, 8, 1), (4, 1, None), (64, 8, None)]
)
def test_more_loading_processes_than_cores_are_slow(
    cores: int, gpus: int, advice: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "available_cores", lambda: cores)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    finding = devices._workers()
    assert finding.state == ("slow" if advice else "ok")
    assert finding.advice == (f"set data.workers={advice}, or add cores" if advice else "")
    assert not advice or finding.problem.startswith(f"{4 * max(1, gpus)} loading processes, but {cores} usable core")


def test_a_gpu_that_refuses_is_broken_and_the_examination_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    gib = 2**30
    answers = [(140 * gib, 141 * gib), (60 * gib, 141 * gib), RuntimeError("CUDA error: out of memory\nand more")]

    def memory(index: int) -> tuple[int, int]:
        if isinstance(answer := answers[index], RuntimeError):
            raise answer
        return answer

    def refuses(*_: Any, **options: Any) -> torch.Tensor:
        raise RuntimeError(f"{options['device']} is reserved")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(name="NVIDIA H200"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", memory)
    findings = list(devices._gpus())
    assert [each.state for each in findings] == ["ok", "slow", "broken"]
    assert findings[0].value == "NVIDIA H200, 140 GiB free of 141 GiB"
    assert findings[2].problem.endswith("another process does: CUDA error: out of memory")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "empty", refuses)
    assert examine._usable_device() == CPU


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "width"), [(Terminal, 80), (Terminal, 50), (Terminal, 300), (io.StringIO, 80)])
def test_lines_have_the_width_of_the_terminal(
    stream: type[io.StringIO], width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [
        Finding("libraries", "torch 2.13.0+cpu, transformers 5.23.0, av 18.1.0, lmdb 3.0.0, numpy 2.4.6"),
        Finding("decoder of videos", "pyav on cpu", "slow", "the GPU does not decode", "install the extra dali-cuda13"),
    ]
    monkeypatch.setattr(examine, "examine", lambda online: found)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(sys, "stdout", shown := stream())
    with pytest.raises(typer.Exit) as ended:
        doctor()
    assert ended.value.exit_code == 0
    lines = shown.getvalue().splitlines()
    verdict = "slower than it could be: decoder of videos: the GPU does not decode; install the extra dali-cuda13"
    if stream is Terminal and width < 100:
        assert max(map(len, lines)) <= width
        assert lines[1].startswith(27 * " " + lines[1].strip())
        assert lines[-1].startswith("  ")
        assert "\n".join(lines).replace("\n  ", " ").endswith(verdict)
    else:
        assert lines == [
            f"ok      libraries          {found[0].value}",
            "slow    decoder of videos  pyav on cpu",
            "",
            verdict,
        ]


def test_a_decoder_that_gives_other_frames_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    decode = trials.decode_canvas

    def wrong(*arguments: Any, packets: Any = None, **options: Any) -> torch.Tensor:
        frames = decode(*arguments, packets=packets, **options)
        return frames if packets is None else 255 - frames

    monkeypatch.setattr(trials, "decode_canvas", wrong)
    for codec in ("h264", "vp9", "mpeg4"):
        finding = trials._try_video(codec, None)
        assert finding.verdict().startswith(f"broken: decoding {codec}: its two ways of decoding give")
    monkeypatch.setattr(trials, "decode_canvas", lambda *_, **__: torch.full((1, 2, 3, 192, 192), 255))
    assert "levels from those encoded" in trials._try_video("h264", None).problem


@pytest.mark.dali
def test_dali_that_gives_other_frames_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DaliDecoder, "decode", lambda self, items: torch.full((1, 1, 2, 3, 192, 192), 10))
    assert "levels from PyAV's" in found(trials.try_decoding(CPU), "decoding vp9").problem

    def fails(*_: Any) -> None:
        raise RuntimeError("no decoder\nand more")

    monkeypatch.setattr(DaliDecoder, "decode", fails)
    assert found(trials.try_decoding(CPU), "decoding vp8").problem == "no decoder"


def test_a_precision_that_fails_or_overflows_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def timed(precision: Any, device: torch.device) -> tuple[float, bool]:
        if precision.name == "fp16":
            raise RuntimeError("not implemented for 'Half'")
        return 1.0, precision.name == "fp32"

    monkeypatch.setattr(trials, "_timed_steps", timed)
    states = {each.part: each.problem for each in trials.try_steps(CPU)}
    assert states == {
        "step in fp32": "",
        "step in bf16": "its loss is not finite",
        "step in fp16": "not implemented for 'Half'",
    }


def test_processes_that_do_not_find_each_other_are_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sleeping = tmp_path / "sleeping"
    sleeping.write_text("#!/bin/sh\nexec sleep 30\n")
    sleeping.chmod(0o755)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert trials.try_processes().state == "broken"
    monkeypatch.setattr(sys, "executable", "/bin/true")  # no sum
    assert trials.try_processes().problem == "their sum is wrong"
    monkeypatch.setattr(sys, "executable", str(sleeping))
    monkeypatch.setattr(trials, "_LONGEST", 0.2)
    assert "do not end" in trials.try_processes().problem
