"""Sound files as people have them: what is read from their packets, what decodes, and what is refused with a reason."""

import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.errors import InvalidInput
from headrace.core.types import MediaMeta
from headrace.modalities.audio import AUDIO, decode_sound, fit, probe_sound, samples_of
from headrace.modalities.container import SLACK_S
from headrace.modalities.mel import ROW_FRAMES, SAMPLE_RATE_HZ, log_mel, rows_of
from tests.model.clip_makers import sound_file, tone, video_file

# container, codec, rate in Hz, channels, MIME, how far the announced duration may be off
FORMATS = [
    ("wav", "pcm_s16le", 8_000, 1, "audio/wav", 0.0),
    ("wav", "pcm_s16le", 48_000, 2, "audio/wav", 0.0),
    ("wav", "pcm_f32le", 16_000, 1, "audio/wav", 0.0),
    ("wav", "pcm_s24le", 44_100, 2, "audio/wav", 0.0),
    ("flac", "flac", 44_100, 2, "audio/flac", 0.001),
    ("flac", "flac", 16_000, 1, "audio/flac", 0.001),
    ("mp3", "libmp3lame", 44_100, 2, "audio/mpeg", 0.1),
    ("mp3", "libmp3lame", 8_000, 1, "audio/mpeg", 0.25),
    ("ogg", "libopus", 48_000, 1, "audio/ogg", 0.03),
    ("mp4", "aac", 44_100, 2, "audio/mp4", 0.05),
    ("webm", "libopus", 48_000, 1, "audio/webm", 0.03),
]
SECONDS = 1.3
WAV = sound_file(tone(0.5, 16_000), 16_000, "wav", "pcm_s16le")
DATA = WAV.index(b"data") + 4
FLAC = sound_file(tone(0.5, 16_000), 16_000, "flac", "flac")
MP3 = sound_file(tone(0.5, 16_000), 16_000, "mp3", "libmp3lame")


@pytest.mark.parametrize(("container", "codec", "rate_hz", "channels", "mime", "off_s"), FORMATS)
def test_formats(container: str, codec: str, rate_hz: int, channels: int, mime: str, off_s: float) -> None:
    data = sound_file(tone(SECONDS, rate_hz, channels), rate_hz, container, codec)
    meta = probe_sound(data)
    assert (meta.modality, meta.mime, meta.size_bytes) == ("audio", mime, len(data))
    assert abs(meta.duration_s - SECONDS) <= off_s + 1e-9
    sound = fit(decode_sound(data), samples_of(meta))
    middle = sound[3_200:16_000]
    assert len(sound) == samples_of(meta)
    # The tone survives mixing and resampling: its loudness, and its pitch by the strongest line of the spectrum.
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.3 / np.sqrt(2), rel=0.1 if channels == 1 else 0.5)
    strongest = np.abs(np.fft.rfft(middle)).argmax() * SAMPLE_RATE_HZ / len(middle)
    assert strongest == pytest.approx(440, abs=3)


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("nothing", b"", "empty"),
        ("text", b"hello, world", "formats: WAV, FLAC, MP3"),
        ("a playlist", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "formats"),
        ("half a WAV", WAV[: len(WAV) // 2], "cut short"),
        ("a WAV without its last sample", WAV[:-2], "cut short"),
        ("half a FLAC", FLAC[: len(FLAC) // 2], "cut short"),
        ("half an MP3", MP3[: len(MP3) // 2], "cut short"),
        ("a WAV header alone", WAV[: DATA + 4], "cut short"),
        ("a WAV of no samples", WAV[:DATA] + bytes(4), "empty"),
        ("a film without sound", video_file([0, 9], "mp4", "libx264"), "no audio stream"),
        ("31 seconds", sound_file(tone(31.0, 8_000), 8_000, "wav", "pcm_s16le"), "longer than 30 s"),
        ("2 kHz", sound_file(tone(0.5, 2_000), 2_000, "wav", "pcm_s16le"), "4000 to 192000 Hz"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_refused(name: str, data: bytes, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        fit(decode_sound(data), samples_of(probe_sound(data)))


def test_a_wav_of_unknown_length_is_read_to_its_end() -> None:
    """As programs write it to a pipe."""
    endless = WAV[:DATA] + struct.pack("<I", 0xFFFF_FFFF) + WAV[DATA + 4 :]
    assert len(decode_sound(endless)) == 8_000
    assert probe_sound(endless).duration_s == pytest.approx(0.5)


def test_a_changed_byte_in_a_flac_is_found() -> None:
    at = len(FLAC) - 200
    broken = FLAC[:at] + bytes([FLAC[at] ^ 0x55]) + FLAC[at + 1 :]
    with pytest.raises(InvalidInput, match="corrupt or cut short"):
        decode_sound(broken)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([WAV, FLAC, MP3]), st.integers(0, 2**31), st.binary(max_size=8))
def test_damage_is_an_error_of_the_input_or_nothing(data: bytes, at: int, noise: bytes) -> None:
    """Whatever is overwritten: a typed refusal, or rows as many as were announced."""
    at %= len(data)
    damaged = data[:at] + noise + data[at + len(noise) :]
    try:
        meta = probe_sound(damaged)
        sound = fit(decode_sound(damaged), samples_of(meta))
    except InvalidInput:
        return
    assert log_mel(sound).shape[1] == ROW_FRAMES * (AUDIO.token_count(meta) - 2)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.0, 30.0))
def test_tokens_follow_the_duration_alone(duration_s: float) -> None:
    meta = MediaMeta("audio", "audio/wav", 0, 0, 1, duration_s)
    tokens = AUDIO.token_count(meta)
    assert tokens == AUDIO.token_count(replace(meta, mime="audio/mpeg", size_bytes=9))
    assert 0 <= tokens - (2 + (duration_s + 0.3) / 0.2) < 1.001, "a row each 0.2 s, and the two edges"
    assert log_mel(np.zeros(samples_of(meta), np.float32)).shape == (80, ROW_FRAMES * rows_of(samples_of(meta)))


def test_a_decode_that_is_off_is_corrupt() -> None:
    samples = 16_000
    slack = int(SLACK_S * SAMPLE_RATE_HZ)
    for length in (samples - slack, samples, samples + slack):
        assert len(fit(np.zeros(length, np.float32), samples)) == samples
    for length in (samples - slack - 1, samples + slack + 1):
        with pytest.raises(InvalidInput, match="corrupt"):
            fit(np.zeros(length, np.float32), samples)


def test_clips_of_one_length_and_of_others_are_encoded_as_each_alone() -> None:
    encoder = AUDIO.load(1)
    files = [sound_file(tone(seconds, 16_000), 16_000, "wav", "pcm_s16le") for seconds in (0.5, 0.5, 1.1)]
    metas = [probe_sound(data) for data in files]
    inputs = [encoder.preprocess(data, meta) for data, meta in zip(files, metas, strict=True)]
    together = encoder.encode(inputs)
    assert [len(rows) for rows in together] == [AUDIO.token_count(meta) for meta in metas]
    for rows, given_input in zip(together, inputs, strict=True):
        np.testing.assert_array_equal(rows, encoder.encode([given_input])[0])
