"""The ear: Whisper frames become soft tokens near word embeddings, learnt without running the language model.

Connectionist temporal classification (Graves et al. 2006) over the grammar's own tokens: each row of 0.2 s comes to
lie at the embedding of the word that ends there, or at a token that stands for "nothing new". No alignment of words
to times is needed. The words are labels: nothing here is self-supervised.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headrace.engines.families.smollm2 import WIDTH, SmolLM2
from headrace.modalities.mel import ROW_FRAMES, log_mel
from headrace.training.pictures import WORDS
from headrace.training.speech import Clip, sentences
from headrace.training.tower import cosine
from headrace.training.whisper import WIDTH as FRAME_WIDTH
from headrace.training.whisper import WhisperEncoder

ROW_WIDTH = FRAME_WIDTH * ROW_FRAMES // 2  # the frames of 0.2 s side by side
_INNER, _HEADS = 320, 5
_BATCH = 32
_NOTHING = " ..."  # one token
_BEHIND = 10_000  # more than any clip has rows
_COMMITMENT = 0.2  # weight of the distance to the embedding that a row is read as
Log = Callable[..., None]


class Ear(nn.Module):
    """Rows of Whisper frames [n, rows, 3840] -> soft tokens [n, rows, width] at the scale of word embeddings."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.fold = nn.Sequential(nn.LayerNorm(ROW_WIDTH), nn.Linear(ROW_WIDTH, _INNER), nn.GELU())
        self.near = nn.Conv1d(_INNER, _INNER, 3, padding=1)
        layer = {"d_model": _INNER, "nhead": _HEADS, "dim_feedforward": 2 * _INNER, "activation": "gelu"}
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(**layer, dropout=0.1, batch_first=True, norm_first=True) for _ in range(2)
        )
        self.out = nn.Sequential(nn.LayerNorm(_INNER), nn.Linear(_INNER, WIDTH))
        self.scale = scale

    def forward(self, rows: Tensor, lengths: Tensor | None = None) -> Tensor:
        """lengths: int64 [n] where rows are padded; None: every row counts."""
        x = self.fold(rows)
        hidden = None
        if lengths is not None:
            hidden = torch.arange(rows.shape[1]) >= lengths[:, None]
            x = x.masked_fill(hidden[..., None], 0.0)
        x = x + F.gelu(self.near(x.transpose(1, 2))).transpose(1, 2)
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=hidden) if lengths is not None else _layer(layer, x)
        soft: Tensor = self.out(x)
        return soft * self.scale


def _layer(layer: nn.TransformerEncoderLayer, x: Tensor) -> Tensor:
    """The layer's own forward pass without padding or dropout; the exporter would fix its length in the graph."""
    attention = layer.self_attn
    mixed = F.linear(layer.norm1(x), attention.in_proj_weight, attention.in_proj_bias)
    q, k, v = (part.unflatten(-1, (_HEADS, _INNER // _HEADS)).transpose(1, 2) for part in mixed.chunk(3, -1))
    attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    x = x + attention.out_proj(attended)
    return x + layer.linear2(F.gelu(layer.linear1(layer.norm2(x))))


@dataclass(frozen=True, slots=True)
class Heard:
    """Clips as the ear gets them."""

    clips: list[Clip]  # without their sound
    rows: list[Tensor]  # float16 [rows, ROW_WIDTH]

    def batch(self, chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Padded rows, float32 [n, rows, ROW_WIDTH], and lengths."""
        rows = [self.rows[i] for i in chosen]
        return nn.utils.rnn.pad_sequence(rows, True).float(), torch.tensor([len(row) for row in rows])


def hear(whisper: WhisperEncoder, clips: Sequence[Clip]) -> Heard:
    """Whisper's frames of every clip; clips of one length go through together."""
    by_length: dict[int, list[int]] = {}
    mels = [torch.from_numpy(log_mel(clip.sound)).half() for clip in clips]
    for i, mel in enumerate(mels):
        by_length.setdefault(mel.shape[1], []).append(i)
    rows: list[Tensor] = [torch.empty(0)] * len(clips)
    with torch.no_grad():
        for same in by_length.values():
            for at in range(0, len(same), 16):
                chosen = same[at : at + 16]
                folded = fold(whisper(torch.stack([mels[i] for i in chosen]).float())).half()
                for i, row in zip(chosen, folded, strict=True):
                    rows[i] = row.clone()
    return Heard([Clip(clip.sound[:0], clip.words, clip.kind, clip.recorded) for clip in clips], rows)


def fold(frames: Tensor) -> Tensor:
    """[n, frames, 384] -> [n, rows, 3840]."""
    return frames.unflatten(1, (-1, ROW_FRAMES // 2)).flatten(2)


class Words:
    """The grammar's tokens as classes; class 0 is "nothing new"."""

    def __init__(self, family: SmolLM2, embedding: Tensor) -> None:
        self._family = family
        (nothing,) = family.encode(_NOTHING)
        tokens = {token for text in (*sentences(), *WORDS) for token in family.encode(f" {text}")}
        self.ids = torch.tensor([nothing, *sorted(tokens)])
        self._class = {token: i for i, token in enumerate(self.ids.tolist())}
        self.vectors = embedding[self.ids]
        self.scale = float(embedding.pow(2).mean().sqrt())

    def classes(self, words: Sequence[str]) -> list[int]:
        return [self._class[token] for token in self._family.encode(" " + " ".join(words))]


def scores_of(soft: Tensor, vectors: Tensor, scale: float) -> Tensor:
    """Log-likelihood ratios of each class under equal Gaussians around the embeddings."""
    return (soft @ vectors.T - vectors.pow(2).sum(1) / 2) / (scale**2 * WIDTH**0.5)


def align_ear(ear: Ear, words: Words, heard: Heard, steps: int, seed: int, log: Log) -> None:
    """Train the ear in place: CTC, and a pull of each row towards the embedding that it is read as."""
    torch.manual_seed(seed)
    rng = Random(seed)
    optimizer = torch.optim.AdamW(ear.parameters(), lr=1.5e-3, weight_decay=0.02, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine(step, steps, 40))
    targets = [words.classes(clip.words) for clip in heard.clips]
    ear.train()
    for step in range(steps):
        chosen = rng.choices(range(len(targets)), k=_BATCH)
        loss = _ctc(ear, words, heard, chosen, [targets[i] for i in chosen])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(ear.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 25 == 24:
            log("ear", step=step + 1, of=steps, loss=round(loss.item(), 4))
    ear.eval()


def _ctc(ear: Ear, words: Words, heard: Heard, chosen: list[int], targets: list[list[int]]) -> Tensor:
    rows, lengths = heard.batch(chosen)
    rows = rows * (torch.rand(len(chosen), 1, ROW_WIDTH) > 0.1) + 0.1 * torch.randn_like(rows)
    soft = ear(rows, lengths)
    scores = scores_of(soft, words.vectors, ear.scale)
    counts = torch.tensor([len(target) for target in targets])
    flat = torch.tensor([token for target in targets for token in target])
    likelihood = F.ctc_loss(scores.log_softmax(-1).transpose(0, 1), flat, lengths, counts, zero_infinity=True)
    nearest = words.vectors[scores.detach().argmax(-1)]
    counted = (torch.arange(rows.shape[1]) < lengths[:, None])[..., None]
    pull = ((soft - nearest) / ear.scale).pow(2).mul(counted).sum() / (counted.sum() * WIDTH)
    return likelihood + _COMMITMENT * pull


class Reader(nn.Module):
    """The trained ear, frozen, with what it says put together: rows [n, rows, 3840] -> the same number of rows.

    A row becomes the mean of the words' embeddings, weighted by how likely the ear takes each to be: the model reads
    those far better than what merely lies nearest to them.

    Rows that repeat the word before them, or say nothing new, move behind those that do ("CTC compression", Gaido et
    al. 2021): the language model sees the words one after the other.
    """

    def __init__(self, ear: Ear, words: Words) -> None:
        super().__init__()
        self.ear = ear.eval().requires_grad_(False)
        self.scale = ear.scale
        self.register_buffer("vectors", words.vectors)

    def forward(self, folded: Tensor) -> tuple[Tensor, Tensor]:
        """Soft tokens [n, rows, width], words first; and which of them are words, bool [n, rows]."""
        shares = scores_of(self.ear(folded), self.vectors, self.scale).softmax(-1)
        soft, labels = shares @ self.vectors, shares.argmax(-1)
        before = torch.cat([torch.zeros_like(labels[:, :1]), labels[:, :-1]], 1)
        is_word = (labels != 0) & (labels != before)
        places = (labels >= 0).long().cumsum(1) + (~is_word) * _BEHIND
        order = places.argsort(1)
        return soft.gather(1, order[..., None].expand(-1, -1, WIDTH)), is_word.gather(1, order)


@dataclass(frozen=True, slots=True)
class Spelt:
    """Clips as a reader puts them together."""

    clips: list[Clip]
    rows: list[Tensor]  # float32 [rows, width]
    are_words: list[Tensor]  # bool [rows]


def spell(reader: Reader, heard: Heard) -> Spelt:
    with torch.no_grad():
        made = [reader(row[None].float()) for row in heard.rows]
    return Spelt(heard.clips, [rows[0] for rows, _ in made], [is_word[0] for _, is_word in made])


def exact_shares(words: Words, spelt: Spelt) -> dict[str, str]:
    """By kind of clip: how many are spelt right in full."""
    counts: dict[str, list[int]] = {}
    for clip, rows, is_word in zip(spelt.clips, spelt.rows, spelt.are_words, strict=True):
        said = scores_of(rows[is_word], words.vectors, words.scale).argmax(-1).tolist()
        count = counts.setdefault(f"{clip.kind}.{'recorded' if clip.recorded else 'espeak'}", [0, 0])
        count[0] += said == words.classes(clip.words)
        count[1] += 1
    return {name: f"{right}/{total}" for name, (right, total) in sorted(counts.items())}
