"""`headrace model`: encoders exported once, found by workers that have no torch, missed with a word on what to do."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from headrace.cli.main import main
from headrace.core.errors import Unavailable
from headrace.engines.families import family
from headrace.engines.families.directory import Directory, export_encoders
from headrace.engines.families.hf_image import GRAPH
from headrace.engines.registry import load_engine
from tests.checkpoints import picture

pytest.importorskip("torch")

# What gateway and encoder do, in a process where importing torch or transformers fails.
WITHOUT_TORCH = """
import sys
for name in ("torch", "transformers", "safetensors"):
    sys.modules[name] = None
import numpy as np
from headrace.core.types import Media
from headrace.engines.families import ChatMessage, MediaPart, TextPart, family
path, picture, rows = sys.argv[1:]
kind = family(path)
images = kind.modality("image")
data = open(picture, "rb").read()
meta = images.probe(data)
media = Media(meta, "", images.token_count(meta))
prompt = kind.render([ChatMessage("user", (MediaPart(0), TextPart("hello")))], [media])
encoder = images.load(1)
found = encoder.encode([encoder.preprocess(data, meta)])[0]
assert found.shape == (prompt.spans[0].length, kind.spec.embed_width) == (media.tokens, kind.spec.embed_width)
np.save(rows, found)
"""


def test_services_need_no_torch(exported: Callable[[str], Path], cache_dir: Path, tmp_path: Path) -> None:
    path = exported("llava_onevision")
    (tmp_path / "a.png").write_bytes(picture(50, 30))
    arguments = [str(path), str(tmp_path / "a.png"), str(tmp_path / "rows.npy")]
    command = [sys.executable, "-c", WITHOUT_TORCH, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    images = family(str(path)).modality("image")
    encoder = images.load(1)
    data = picture(50, 30)
    wanted = encoder.encode([encoder.preprocess(data, images.probe(data))])[0]
    np.testing.assert_array_equal(np.load(tmp_path / "rows.npy"), wanted)


def test_what_is_not_exported_is_missed_by_name(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_CACHE_DIR", str(tmp_path))
    path = checkpoint("llava")
    with pytest.raises(Unavailable, match=f"run `headrace model export {path}`"):
        family(str(path)).modality("image").load(1)


def test_export_writes_once(
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = checkpoint("llava")
    assert main(["model", "export", str(path), "--out", str(tmp_path)]) == 0
    assert "is ready: 2 files" in capsys.readouterr().out
    (folder,) = (found for found in tmp_path.iterdir() if found.is_dir())
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["architecture"], manifest["fingerprint"]) == ("llava", Directory(path).fingerprint)
    assert manifest["files"] == {GRAPH: (folder / GRAPH).stat().st_size}
    written = (folder / GRAPH).stat().st_mtime_ns

    assert main(["model", "export", str(path), "--out", str(tmp_path)]) == 0
    assert "was there already" in capsys.readouterr().out
    assert (folder / GRAPH).stat().st_mtime_ns == written

    monkeypatch.setenv("HEADRACE_CACHE_DIR", str(tmp_path))
    assert main(["model", "show", str(path)]) == 0
    shown = capsys.readouterr().out
    assert str(folder) in shown
    assert "text, image" in shown


def test_changed_weights_are_exported_anew(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    """A folder of another fingerprint is not this checkpoint's."""
    path = tmp_path / "copy"
    path.mkdir()
    for file in checkpoint("llava").iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    before = Directory(path).encoders
    with (path / "model.safetensors").open("ab") as weights:
        weights.write(b" ")
    assert Directory(path).encoders != before


@pytest.mark.parametrize("style", ["published", "nested"])
def test_weights_go_by_old_and_new_names(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, style: str
) -> None:
    """The same model under the names of published files, and under those of transformers 5's modules, in bfloat16."""
    monkeypatch.setenv("HEADRACE_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "llava"
    _renamed(checkpoint("llava"), path, style)
    assert main(["model", "export", str(path)]) == 0
    wanted = _rows(checkpoint("llava"), tmp_path)
    np.testing.assert_allclose(_rows(path, tmp_path), wanted, atol=0.2)  # 8 bits of a float
    engine = load_engine("torch", str(path), threads=1, slots=1, blocks=1)
    assert engine.blocks == 1


def _renamed(source: Path, path: Path, style: str) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    path.mkdir()
    for file in source.iterdir():
        if file.suffix != ".safetensors":
            (path / file.name).write_bytes(file.read_bytes())
    weights = {name: weight.to(torch.bfloat16) for name, weight in load_file(source / "model.safetensors").items()}
    found = {_published(name) if style == "published" else _nested(name): weight for name, weight in weights.items()}
    names = sorted(found)
    half = len(names) // 2  # in two files, as large checkpoints come
    save_file({name: found[name] for name in names[:half]}, path / "model-00001-of-00002.safetensors")
    save_file({name: found[name] for name in names[half:]}, path / "model-00002-of-00002.safetensors")


def _published(name: str) -> str:
    return name.replace("vision_tower.", "vision_tower.vision_model.")


def _nested(name: str) -> str:
    if name == "language_model.lm_head.weight":
        return "lm_head.weight"
    return "model." + name.replace("language_model.model.", "language_model.")


def _rows(path: Path, tmp_path: Path) -> NDArray[np.float32]:
    export_encoders(path, tmp_path / "cache")
    images = family(str(path)).modality("image")
    encoder, data = images.load(1), picture(50, 30)
    return encoder.encode([encoder.preprocess(data, images.probe(data))])[0]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "config.json cannot be read"),
        ({"model_type": "internvl_chat"}, "model_type 'internvl_chat' has no family here; there are llama"),
        ([], "is not a JSON object"),
    ],
)
def test_what_cannot_be_opened_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], config: object, message: str
) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    assert main(["model", "export", str(tmp_path)]) == 1
    assert message in capsys.readouterr().err


def test_text_models_have_nothing_to_export(
    checkpoint: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["model", "export", str(checkpoint("llama"))]) == 0
    assert "nothing to export" in capsys.readouterr().out


def test_an_interrupted_export_leaves_nothing_to_be_found(
    checkpoint: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A checkpoint without weights: it is said, and the next export starts anew."""
    path = tmp_path / "broken"
    path.mkdir()
    for file in checkpoint("llava").iterdir():
        if file.suffix != ".safetensors":
            (path / file.name).write_bytes(file.read_bytes())
    assert main(["model", "export", str(path), "--out", str(tmp_path / "out")]) == 1
    assert "holds no *.safetensors" in capsys.readouterr().err
    assert not Directory(path).encoders_in(tmp_path / "out").exists()
