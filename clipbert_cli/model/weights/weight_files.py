"""Files of weights, read without ever running what they hold: safetensors, and torch files with `weights_only=True`."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from clipbert_cli.errors import UnreadableError, WeightsError
from clipbert_cli.foreign import no_file, open_file, parse_json, read_json

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
"""The file that says which of several files has which entry, where weights are too large for one."""

FOLDER_FILES = (WEIGHTS_FILE, INDEX_FILE, "pytorch_model.bin")

WRAPPERS = ("model", "state_dict", "model_state_dict", "model_state")
"""Entries under which training programs put the weights, beside their optimiser and counters."""

NOT_WEIGHTS = {
    b"<": "a web page (HTML or XML), not weights",
    b"version https://git-lfs": "a Git LFS pointer, not the file it points to",
    b"{": "JSON text, not weights",
}
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

MAX_HEADER = 4 * 2**20
"""Most bytes of the header of a safetensors file: some 60,000 entries, which are read in about two seconds."""

DOWNLOAD_AGAIN = "the file is damaged or was not downloaded completely: download it again and compare its checksum"


@dataclass(frozen=True)
class WeightFile:
    """Weights by their names in the file."""

    path: Path
    tensors: dict[str, Tensor]


def read_weights(source: Path) -> WeightFile:
    """Return the tensors of a file, or of one of `FOLDER_FILES` in a folder; on the CPU.

    Raises:
        WeightsError: nothing there, another kind of file, a damaged file, or a pickle that wants to run code.
    """
    path = find_file(source)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise WeightsError(f"{path}: unknown kind of file {path.suffix!r}, expected one of {', '.join(READERS)}")
    return WeightFile(path, as_tensors(path, reader(path)))


def refuse_others(path: Path) -> None:
    """Raise WeightsError for an empty file, and for what a failed download leaves in place of weights."""
    if not path.is_file():  # the reader itself says so
        return
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        raise WeightsError(f"{path}: the file is empty", hint=DOWNLOAD_AGAIN)
    for magic, what in NOT_WEIGHTS.items():
        if start.lstrip().startswith(magic):
            raise WeightsError(f"{path}: this is {what}", hint="download the file itself, and compare its checksum")


def find_file(source: Path) -> Path:
    if source.is_dir():
        for name in FOLDER_FILES:
            if (source / name).is_file():
                return source / name
        names = sorted(path.name for path in source.iterdir())[:10]
        raise WeightsError(f"{source}: holds {', '.join(names) or 'nothing'}; expected {' or '.join(FOLDER_FILES)}")
    if not source.is_file():
        raise WeightsError(
            no_file(source, "file or folder"),
            hint="check the path; in a recipe it starts from data.root, and a model of the Hub is named hf:ORG/NAME; "
            "null starts this part at random (docs/own-data.md)",
        )
    return source


def as_tensors(path: Path, content: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Return the entries as tensors, without PyTorch's batch counters.

    A wrapping entry (`model`, `state_dict`, ...) is opened; a prefix `module.` of all names is taken off.
    """
    content = next((content[name] for name in WRAPPERS if isinstance(content.get(name), Mapping)), content)
    tensors: dict[str, Tensor] = {}
    for name, value in content.items():
        if str(name).endswith("num_batches_tracked"):
            continue
        if isinstance(value, Tensor) and (value.layout is not torch.strided or value.is_nested or value.is_meta):
            raise WeightsError(
                f"{path}: entry {name!r} is a sparse or nested tensor, or has no values",
                hint="save it as an ordinary tensor, for example with tensor.to_dense()",
            )
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise WeightsError(
                f"{path}: entry {name!r} is of type {type(value).__name__}, expected a tensor",
                hint=f"weights are entries of the file itself, or of one of its entries {', '.join(WRAPPERS)}",
            )
        tensors[name] = value
    if not tensors:
        raise WeightsError(f"{path}: holds no tensors")
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return tensors


def check_finite(values: Mapping[str, Tensor], path: Path) -> None:
    """Raise WeightsError, with the name of the first one, if a tensor has values that are no numbers."""
    # torch does not examine all types of floating point numbers; float32 holds those of others that may be here.
    bad = [name for name, tensor in values.items() if not bool(torch.isfinite(tensor.float()).all())]
    if bad:
        count = int((~torch.isfinite(values[bad[0]].float())).sum())
        more = f", and {len(bad) - 1} more tensors" if len(bad) > 1 else ""
        raise WeightsError(
            f"{path}: {count} of the {values[bad[0]].numel()} values of {bad[0]} are NaN or infinite{more}",
            hint="the training that made it has failed, or the file is damaged: take an earlier checkpoint",
        )


def read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError as error:
        raise WeightsError(
            f"{path}: safetensors reads no path that is not UTF-8", hint="rename the folder or the file"
        ) from error
    refuse_others(path)
    try:
        _check_header(path)
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, UnreadableError, OSError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be read as safetensors: {error}", hint=DOWNLOAD_AGAIN) from error
    return tensors


def _check_header(path: Path) -> None:
    """Check what safetensors itself reads without a word or without a limit: a name twice, a header of many entries.

    Raises:
        UnreadableError, OSError, ValueError: the header is not usable.
    """
    with open_file(path) as file:
        size = int.from_bytes(file.read(8), "little")
        if size > MAX_HEADER:
            raise ValueError(f"its header of {size:,} bytes is longer than the {MAX_HEADER:,} that are read")
        parse_json(file.read(size), "its header", line=None)


def read_object(path: Path) -> dict[str, Any] | None:
    """Return the object in a JSON file that describes weights, None where there is no file.

    Raises:
        WeightsError: it is not JSON, or is no object.
    """
    try:
        values = read_json(path)
    except FileNotFoundError:
        return None
    except UnreadableError as error:
        raise WeightsError(str(error), hint=DOWNLOAD_AGAIN) from error
    if not isinstance(values, dict):
        raise WeightsError(f"{path}: holds a {type(values).__name__}, expected a JSON object", hint=DOWNLOAD_AGAIN)
    return values


def check_values(values: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
    """Check those of an object's values that have a type here.

    Raises:
        ValueError: one has another type or is out of bounds: `num_attention_heads is -1: it must be ...`.
    """
    for name in (name for name in kinds if name in values):
        try:
            TypeAdapter(kinds[name]).validate_python(values[name], strict=True)
        except ValidationError as error:
            says = error.errors()[0]["msg"].removeprefix("Value error, ").replace("Input should be", "it must be")
            raise ValueError(f"{name} is {values[name]!r:.60}: {says}") from error


def wrong_file(path: Path, reason: object) -> WeightsError:
    """Return the error about a file beside weights whose values are not possible."""
    return WeightsError(f"{path}: {reason}", hint="compare the file with that of the published model")


def read_index(path: Path) -> Mapping[Any, Any]:
    """Return the tensors of all files beside it that an index lists."""
    places = (read_object(path) or {}).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise WeightsError(f"{path}: has no weight_map, which says which file has which entry", hint=DOWNLOAD_AGAIN)
    tensors: dict[Any, Any] = {}
    for name in sorted(set(places.values())):
        # An index from elsewhere must not name a file in another folder.
        if not re.fullmatch(r"[\w.-]+\.safetensors", name):
            raise WeightsError(f"{path}: names {name!r}, expected a .safetensors file beside it")
        tensors |= read_safetensors(path.with_name(name))
    return tensors


def read_torch(path: Path, *, mapped: bool = True) -> Mapping[Any, Any]:
    """Return the entries of a torch file. Unless they are `mapped`, they are in memory and the file may change.

    Raises:
        WeightsError: another kind of file, a damaged one, or one that wants to run code.
    """
    refuse_others(path)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")  # it loads, or is refused below
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        # What torch found, without its advice to load the file in an unsafe way.
        found = re.search(r"WeightsUnpickler error:\s*([^\n]+?)(?:\. |\.?\n|$)", str(error))
        reason = found[1] if found else "it is no file of weights"
        raise WeightsError(
            f"{path}: holds more than tensors and plain containers, or is damaged: {reason}",
            hint="only weights are read, nothing is unpickled freely: save the state dict alone",
        ) from error
    # A damaged pickle fails with any of a dozen types of errors.
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise WeightsError(f"{path}: cannot be read as a torch file: {reason}", hint=DOWNLOAD_AGAIN) from error
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path}: holds a {type(content).__name__}, expected weights by name")
    return content


READERS: dict[str, Callable[[Path], Mapping[Any, Any]]] = {
    ".safetensors": read_safetensors,
    ".pt": read_torch,
    ".pth": read_torch,
    ".bin": read_torch,
    ".json": read_index,
}
