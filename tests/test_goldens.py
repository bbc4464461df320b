"""The generators in `goldens.py` give the check values of the golden set."""

import zlib

import numpy as np
import pytest
from goldens import golden_json, picture, text, weight, weight_seed, weights_salt

pytestmark = pytest.mark.golden


def test_generated_weights_are_the_documented_ones() -> None:
    rows = golden_json("model/weights_check.json")["weights"]
    assert rows
    for row in rows:
        values = weight(row["name"], row["shape"], salt=weights_salt())
        assert weight_seed(row["name"], weights_salt()) == row["seed"], row["name"]
        assert zlib.crc32(values.astype("<f4").tobytes()) == row["crc32_of_bytes"], row["name"]
        assert values.reshape(-1)[:4].tolist() == row["first4"], row["name"]


def test_generated_pictures_are_the_documented_ones() -> None:
    for row in golden_json("model/weights_check.json")["images"]:
        pixels = picture(row["seed"], row["h"], row["w"])
        assert zlib.crc32(pixels.tobytes()) == row["crc32"]
        assert pixels.mean() == pytest.approx(row["mean"], abs=1e-9)


def test_generated_texts_are_the_documented_ones() -> None:
    for row in golden_json("model/weights_check.json")["texts"]:
        ids, mask = text(row["seed"], row["n"], row["length"], row["vocab"])
        assert np.array_equal(ids, row["ids"])
        assert np.array_equal(mask, np.array(row["mask"], dtype=bool))
