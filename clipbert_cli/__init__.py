"""clipbert: video and image question answering and text-to-video retrieval from raw media, the ClipBERT way."""

__version__ = "0.1.0"
