"""A small model and batch, and the golden models, built once per session."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import reference
import torch
from small_models import small_config

from clipbert_cli.model.clipbert import ClipBert
from clipbert_cli.model.heads import HeadSpec
from clipbert_cli.recipe.schema import ModelConfig
from clipbert_cli.types import Batch


@pytest.fixture
def config() -> ModelConfig:
    return small_config()


@pytest.fixture
def classifier(config: ModelConfig) -> ClipBert:
    torch.manual_seed(0)
    return ClipBert(config, HeadSpec("classifier", 7)).eval()


@pytest.fixture
def pretraining(config: ModelConfig) -> ClipBert:
    torch.manual_seed(0)
    return ClipBert(config, HeadSpec("pretraining", 2)).eval()


@pytest.fixture
def batch() -> Batch:
    """2 items, 3 clips of 2 frames, 64 x 128 pixels -> a grid of 1 x 2; 3 texts of up to 9 tokens, 4 wanted words."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([9, 5, 4])
    mask = torch.arange(9) < lengths[:, None]
    ids = torch.randint(5, 60, (3, 9), generator=generator) * mask
    frames = torch.randint(0, 256, (2, 3, 2, 3, 64, 128), generator=generator, dtype=torch.uint8)
    words = torch.tensor([[0, 0, 1, 2], [1, 8, 2, 0]])
    return Batch(frames, ids, mask, torch.tensor([0, 1, 1]), (), word_positions=words)


@pytest.fixture(scope="session")
def golden_model() -> Callable[[str], ClipBert]:
    """The golden model of a size; tests may exchange its head and nothing else."""
    return reference.shared_model


@pytest.fixture(scope="session")
def golden_encoded(golden_model: Callable[[str], ClipBert]) -> Callable[[str, str], reference.Encoded]:
    """The visual tokens and stages of a case's frames, by size and case."""

    @functools.lru_cache(maxsize=1)
    def encoded(size: str, case_id: str) -> reference.Encoded:
        return reference.encode(golden_model(size), reference.frames(size, case_id))

    return encoded
