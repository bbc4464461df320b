"""The model: `ClipBert`, the head that a task declares (`HeadSpec`), and reading and writing of its weights."""

from clipbert_cli.model.clipbert import ClipBert
from clipbert_cli.model.heads import Fused, HeadSpec
from clipbert_cli.model.hf_encoder import HuggingFaceEncoder
from clipbert_cli.model.hf_files import VisionModel, read_vision_model
from clipbert_cli.model.pretrained import from_pretrained, save_pretrained
from clipbert_cli.model.starting import StartingFiles, load_start, plan_model
from clipbert_cli.model.weights.load import LoadReport, load_weights
from clipbert_cli.model.weights.vision import load_vision_model

__all__ = [
    "ClipBert",
    "Fused",
    "HeadSpec",
    "HuggingFaceEncoder",
    "LoadReport",
    "StartingFiles",
    "VisionModel",
    "from_pretrained",
    "load_start",
    "load_vision_model",
    "load_weights",
    "plan_model",
    "read_vision_model",
    "save_pretrained",
]
