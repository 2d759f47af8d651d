"""Qwen2-Audio: a Whisper-like tower over log-mel frames, pairs of its rows averaged, Qwen2's language model."""

from pathlib import Path
from typing import Any

from headrace.core.errors import Unavailable
from headrace.engines.families import Family
from headrace.engines.families.decoder import Decoder, text_decoder
from headrace.engines.families.directory import Directory
from headrace.engines.families.hf import Slot, open_hf
from headrace.engines.families.hf_config import language, model_spec
from headrace.engines.families.hf_pixels import load_preprocessor
from headrace.engines.families.llama_text import wrapped_name
from headrace.engines.families.qwen2_audio_clips import FRAME_SAMPLES, GRAPH, WINDOW_SAMPLES, Hearing, QwenClips
from headrace.modalities.mel import SAMPLE_RATE_HZ

AUDIO_TOKEN = "<|AUDIO|>"
_EXTRACTOR: dict[str, Any] = {
    "sampling_rate": SAMPLE_RATE_HZ,
    "hop_length": FRAME_SAMPLES,
    "n_fft": WINDOW_SAMPLES,
    "chunk_length": 30,
    "feature_size": 128,
    "dither": 0.0,
}


def family(directory: Directory) -> Family:
    clips = _clips(directory)
    spec = model_spec(
        directory,
        family="qwen2_audio",
        modalities=("audio",),
        placeholder_id=int(directory.config["audio_token_index"]),
    )
    return open_hf(directory, lambda _: spec, slots={"audio": Slot(AUDIO_TOKEN)}, modalities={"audio": clips})


def decoder(directory: Directory) -> Decoder:
    fields = language(directory.config)
    tied = bool(directory.config.get("tie_word_embeddings") or fields["tie_word_embeddings"])
    return text_decoder(directory, fields, wrapped_name, tied=tied)


def export(directory: Directory, out: Path) -> None:
    """See Architecture.export."""
    import torch
    from transformers import Qwen2AudioConfig
    from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioEncoder

    from headrace.engines.families.exporting import load_part, write_graph
    from headrace.engines.families.qwen2_audio_tower import SoundTower

    config = Qwen2AudioConfig.from_pretrained(directory.path)
    tower: Any = Qwen2AudioEncoder(config.audio_config)
    projector = torch.nn.Linear(config.audio_config.d_model, config.text_config.hidden_size)
    load_part(directory, tower, ("model.audio_tower.", "audio_tower."))
    load_part(directory, projector, ("model.multi_modal_projector.linear.", "multi_modal_projector.linear."))
    hearing = _clips(directory).hearing
    example = {
        "frames": torch.zeros(2, hearing.bands, 22),
        "places": torch.arange(10),
    }
    axes = {"frames": {0: "clips", 2: "frames"}, "places": {0: "places"}, "rows": {0: "clips", 1: "rows"}}
    write_graph(SoundTower(tower, projector), example, axes, out / GRAPH)


def _clips(directory: Directory) -> QwenClips:
    """
    Raises:
        Unavailable: features that are not Whisper's, or not those that the tower takes.
    """
    audio = directory.config.get("audio_config") or {}
    said = load_preprocessor(directory, _EXTRACTOR).said
    fixed = ("sampling_rate", "hop_length", "n_fft", "dither")
    if any(said[name] != _EXTRACTOR[name] for name in fixed):
        raise Unavailable(f"{directory.path}: the feature extractor's {', '.join(fixed)} are not Whisper's")
    hearing = Hearing(bands=int(said["feature_size"]), seconds_max=int(said["chunk_length"]))
    tower = (int(audio.get("num_mel_bins", 128)), 2 * int(audio.get("max_source_positions", 1500)))
    if tower != (hearing.bands, hearing.frames_max):
        raise Unavailable(f"{directory.path}: the tower does not take the feature extractor's frames")
    return QwenClips(hearing, directory)
