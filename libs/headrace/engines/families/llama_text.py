"""Text models of the Llama type: Llama, Mistral, Qwen2, Qwen3. No media, nothing to export."""

from pathlib import Path

from headrace.engines.families import Family
from headrace.engines.families.decoder import Decoder, text_decoder
from headrace.engines.families.directory import Directory
from headrace.engines.families.hf import open_hf
from headrace.engines.families.hf_config import language, model_spec


def family(directory: Directory) -> Family:
    return open_hf(directory, lambda _: model_spec(directory, family="llama_text"))


def decoder(directory: Directory) -> Decoder:
    return text_decoder(directory, language(directory.config), decoder_name)


def export(directory: Directory, out: Path) -> None:
    """There is no encoder."""


def decoder_name(name: str) -> str:
    """A weight of the checkpoint -> its name in a Decoder. Tables of rotary angles are computed, not read."""
    return "" if name.endswith("rotary_emb.inv_freq") else name.removeprefix("model.")


def wrapped_decoder(directory: Directory, *, tied: bool = False) -> Decoder:
    """The language model inside another. tied: what the whole's configuration class assumes of the head."""
    fields = language(directory.config)
    whole = directory.config.get("tie_word_embeddings", tied)
    changed = {**fields, "tie_word_embeddings": whole or fields["tie_word_embeddings"]}
    return text_decoder(directory, changed, wrapped_name)


def wrapped_name(name: str) -> str:
    """The same for a language model inside another: what is not its own has no name. Old and new files differ."""
    name = name.removeprefix("model.")
    if name.removeprefix("language_model.") == "lm_head.weight":
        return "lm_head.weight"
    if not name.startswith("language_model."):
        return ""
    return decoder_name(name.removeprefix("language_model."))
