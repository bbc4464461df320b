"""The model: `ClipBert`, the head that a task declares (`HeadSpec`), and reading and writing of its weights."""

from clipbert_cli.model.clipbert import ClipBert
from clipbert_cli.model.heads import Fused, HeadSpec
from clipbert_cli.model.pretrained import from_pretrained, save_pretrained
from clipbert_cli.model.weights.load import LoadReport, load_weights

__all__ = ["ClipBert", "Fused", "HeadSpec", "LoadReport", "from_pretrained", "load_weights", "save_pretrained"]
