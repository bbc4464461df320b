"""A saved model: `config.json`, which describes it (`description.py`), beside `model.safetensors`."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file

from clipbert_cli.errors import OutputError
from clipbert_cli.files import OUT_OF_SPACE, atomic_file, atomic_path
from clipbert_cli.model.clipbert import ClipBert
from clipbert_cli.model.description import Description, read_description
from clipbert_cli.model.hf_encoder import HuggingFaceEncoder
from clipbert_cli.model.weights.load import load_weights
from clipbert_cli.model.weights.weight_files import CONFIG_FILE, WEIGHTS_FILE


def save_pretrained(model: ClipBert, folder: str | Path) -> None:
    """Write `config.json` and `model.safetensors` into `folder`, which is created if needed.

    Raises:
        OSError: there is no space left.
        OutputError: the folder cannot be written for another reason.
    """
    folder = Path(folder)
    encoder = model.visual_encoder
    vision = encoder.vision if isinstance(encoder, HuggingFaceEncoder) else None
    description = Description(model.config, model.head_spec, vision, model.vocabulary)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(folder / CONFIG_FILE) as stream:
            stream.write(description.to_json())
        with atomic_path(folder / WEIGHTS_FILE) as unfinished:
            save_file(state, unfinished, metadata={"format": "pt"})
    except (OSError, SafetensorError) as error:
        if isinstance(error, OSError) and error.errno in OUT_OF_SPACE:
            raise
        raise OutputError(f"{folder}: the model cannot be written here: {error}") from error


def from_pretrained(folder: str | Path) -> ClipBert:
    """Return the model that `save_pretrained` wrote, in evaluation mode on the CPU.

    Raises:
        WeightsError: no such folder, or its files are not this project's or do not fit each other.
    """
    folder = Path(folder)
    model = ClipBert(*read_description(folder))
    load_weights(model, folder, parts="all", allow_new_head=False)
    return model.eval()
