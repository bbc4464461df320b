"""A model small enough for tests that are not about numbers."""

from clipbert_cli.recipe.schema import BertConfigSection, ModelConfig, VisualConfig


def small_config(**changes: object) -> ModelConfig:
    """A model that runs in milliseconds; no dropout."""
    return ModelConfig(
        visual=VisualConfig(stem_size=8, hidden_sizes=[16, 16, 24, 32], depths=[1, 1, 1, 1]),
        bert=BertConfigSection(
            vocab_size=60,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=24,
            hidden_dropout=0.0,
            attention_dropout=0.0,
        ),
    ).model_copy(update=changes)
