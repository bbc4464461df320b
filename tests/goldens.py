"""The golden data: reading it, and its documented generators (golden/README.md, section 1).

`CLIPBERT_GOLDEN=other/folder pytest -m golden` checks another set of the same form. Everything that a set may change
(salts, seeds, sizes, cases, numbers of labels) is read from the set.
"""

from __future__ import annotations

import functools
import json
import math
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np

OWN_COPY = Path(__file__).parent / "golden"

TIED = {
    "transformer.cls.predictions.decoder.weight": "transformer.bert.embeddings.word_embeddings.weight",
    "transformer.cls.predictions.decoder.bias": "transformer.cls.predictions.bias",
}


def golden_folder() -> Path:
    """Return the folder that CLIPBERT_GOLDEN names, or the copy beside the tests."""
    folder = Path(os.environ.get("CLIPBERT_GOLDEN") or OWN_COPY)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"CLIPBERT_GOLDEN is {folder}, which is no folder: name one with the layout of tests/golden"
        )
    return folder


@functools.cache
def golden_json(name: str) -> Any:
    """Return the content of a JSON file, by its path inside the folder. Tests share it: do not change it."""
    return json.loads((golden_folder() / name).read_text(encoding="utf-8"))


@functools.cache
def golden_arrays(name: str) -> dict[str, np.ndarray]:
    """Return all arrays of an .npz file, by its path inside the folder."""
    with np.load(golden_folder() / name) as arrays:
        return {key: arrays[key] for key in arrays.files}


def weights_salt() -> str:
    salt: str = golden_json("model/weights_check.json")["salt"]
    return salt


# 1.1 weights


def weight_seed(name: str, salt: str) -> int:
    return zlib.crc32((salt + TIED.get(name, name)).encode())


def weight(name: str, shape: tuple[int, ...] | list[int], *, salt: str) -> np.ndarray:
    """Return the float32 values of the entry `name` of the original's state."""
    name = TIED.get(name, name)
    generator = np.random.Generator(np.random.PCG64(weight_seed(name, salt)))
    n = generator.standard_normal(tuple(shape), dtype=np.float32)
    if name.endswith("running_mean"):
        return np.float32(0.05) * n
    if name.endswith("running_var"):
        return np.float32(1) + np.float32(0.1) * np.abs(n)
    if name.endswith((".norm.weight", "LayerNorm.weight")):
        return np.float32(1) + np.float32(0.05) * n
    if name.endswith(".bias"):
        return np.float32(0.02) * n
    if name.endswith(".weight") and "embed" in name.split(".")[-2]:
        return np.float32(0.05) * n
    return np.float32(weight_gain(name) / math.sqrt(math.prod(shape[1:]))) * n


def weight_gain(name: str) -> float:
    if not name.startswith("cnn.feature.backbone."):
        return 1.0
    if name.endswith("stem.conv1.weight"):
        return 0.02
    if name.endswith((".conv1.weight", ".conv2.weight")):
        return 1.4142
    return 0.5 if name.endswith(".conv3.weight") else 1.0


# 1.2 pictures


def picture(seed: int, height: int, width: int) -> np.ndarray:
    """Return a picture: (height, width, 3) uint8, RGB."""
    generator = np.random.Generator(np.random.PCG64(seed))
    base = generator.integers(0, 256, (1, 1, 3))
    amplitude = generator.integers(8, 129, (1, 1, 3))
    pattern = generator.integers(-100, 101, (math.ceil(height / 32), math.ceil(width / 32), 3))
    noise = generator.integers(-24, 25, (height, width, 3))
    coarse = base + np.floor(amplitude * pattern / 100).astype(np.int64)
    coarse = coarse.repeat(32, axis=0).repeat(32, axis=1)[:height, :width]
    return np.clip(coarse + noise, 0, 255).astype(np.uint8)


def picture_batch(
    seed: int, items: int, frames: int, height: int, width: int, *, valid: list[int] | None = None
) -> np.ndarray:
    """Return pictures (items, frames, 3, height, width) uint8, zero outside the top-left `valid` (height, width)."""
    pictures = [[picture(seed + 100 * item + frame, height, width) for frame in range(frames)] for item in range(items)]
    batch = np.ascontiguousarray(np.array(pictures).transpose(0, 1, 4, 2, 3))
    if valid:
        batch[..., valid[0] :, :] = 0
        batch[..., :, valid[1] :] = 0
    return batch


# 1.3 texts


def text(seed: int, rows: int, length: int, vocabulary: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ids (rows, length) int64 and their mask (rows, length) bool, where True is a real token."""
    generator = np.random.Generator(np.random.PCG64(seed))
    lengths = generator.integers(4, length + 1, rows)
    lengths[0] = length
    ids = generator.integers(5, vocabulary, (rows, length))
    mask = np.arange(length) < lengths[:, None]
    ids[:, 0] = 2
    ids[np.arange(rows), lengths - 1] = 3
    ids[~mask] = 0
    return ids, mask


# Reference values of the generators


def sample(values: np.ndarray, stride: int, count: int) -> np.ndarray:
    """Return every `stride`-th of the flattened values, at most `count`, as the set samples its arrays."""
    return values.reshape(-1)[::stride][:count]


def statistics(values: np.ndarray) -> dict[str, float]:
    """Return the statistics that the JSON files hold, computed in float64. The deviation has no Bessel correction."""
    wide = values.astype(np.float64)
    return {
        "mean": wide.mean().item(),
        "std": wide.std().item(),
        "min": wide.min().item(),
        "max": wide.max().item(),
        "l2": np.sqrt(np.square(wide).sum()).item(),
    }
