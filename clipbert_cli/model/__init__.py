"""The core model: `ClipBert`, what it needs to be told (`HeadSpec`), and its weights."""

from clipbert_cli.model.clipbert import ClipBert
from clipbert_cli.model.heads import Fused, HeadSpec
from clipbert_cli.model.weights.load import LoadReport, load_weights

from_pretrained = ClipBert.from_pretrained

__all__ = ["ClipBert", "Fused", "HeadSpec", "LoadReport", "from_pretrained", "load_weights"]
