"""The text encoder: a small CLIP that learned to read scenes out of captions, and its BPE."""

import json
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from .captions import UNSAID, caption
from .scene import COLOUR_NAMES, PLACE_NAMES, SUBJECT_NAMES, TIMES, training_scene

LENGTH = 77
WIDTH = 128
MERGES = 1000
BATCH = 96
START, END = "<|startoftext|>", "<|endoftext|>"
ANSWERS = (
    (*TIMES, UNSAID),
    (*PLACE_NAMES, UNSAID),
    SUBJECT_NAMES,
    (*COLOUR_NAMES, "none", UNSAID),
)
"""What can be said of each attribute."""


def build_tokenizer(seed: int = 0) -> CLIPTokenizer:
    """Learn byte-pair merges from captions; the vocabulary also holds every single byte."""
    rng = np.random.default_rng(seed)
    texts = [caption(training_scene(rng), rng).text for _ in range(20_000)]
    in_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer = normalizers.Lowercase()
    learner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), in_bytes])
    trainer = trainers.BpeTrainer(
        vocab_size=MERGES + 600,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    merges: Any = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"][:MERGES]]
    tokens = [*alphabet, *(letter + "</w>" for letter in alphabet)]
    tokens += ["".join(pair) for pair in merges] + [START, END]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocabulary, merges, model_max_length=LENGTH)


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Build an untrained encoder of the size that the demo model affords."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=3 * WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
            hidden_act="gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.eos_token_id,
        )
    )


def tokens_of(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """Return token ids of shape (texts, 77), padded and cut as the pipeline does."""
    ids: Tensor = tokenizer(
        texts, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt"
    ).input_ids
    return ids


class Questions(nn.Module):
    """Questions to the encoder: what time, place, subject and colour the text says.

    Each is asked of the token that ends the text and of the padding after it. Those are the
    positions that have seen all words, and most of what the UNet attends to.
    """

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(WIDTH, len(choices)) for choices in ANSWERS)

    def forward(self, hidden: Tensor, ended: Tensor) -> list[Tensor]:
        """Return logits per question; ``ended`` marks positions from the end token on."""
        weights = ended.to(hidden.dtype)
        at_end = hidden[torch.arange(len(hidden)), ended.int().argmax(dim=1)]
        pooled = (hidden * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)
        return [head(at_end) + head(pooled) for head in self.heads]


def fit(
    name: str,
    parameters: list[nn.Parameter],
    batch: Callable[[], tuple[list[Tensor], Tensor]],
    *,
    rate: float,
    steps: int,
) -> None:
    """Teach what has these parameters to answer questions.

    ``batch`` returns logits per question and the right answers, of shape (samples, questions);
    an answer of -100 does not count.
    """
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=steps, pct_start=0.05
    )
    for step in range(steps):
        logits, targets = batch()
        asked = list(zip(logits, targets.T, strict=True))
        loss = torch.stack([nn.functional.cross_entropy(given, right) for given, right in asked])
        optimizer.zero_grad()
        loss.sum().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            right = [f"{(x.argmax(1) == y).float().mean():.3f}" for x, y in asked]
            print(f"{name} {step} loss {loss.sum():.3f} right {' '.join(right)}", flush=True)


def train_text_encoder(folder: Path, *, steps: int) -> None:
    """Teach the encoder to answer the questions; saves it and its tokenizer in ``folder``."""
    tokenizer = build_tokenizer()
    encoder, questions = build_text_encoder(tokenizer), Questions()
    rng = np.random.default_rng(1)

    def batch() -> tuple[list[Tensor], Tensor]:
        captions = [caption(training_scene(rng), rng) for _ in range(BATCH)]
        # Captions are short: the padding beyond is all alike, so a part of it is enough.
        tokens = tokens_of(tokenizer, [each.text for each in captions])[:, :40]
        ended = tokens.eq(tokenizer.eos_token_id).cumsum(1) > 0
        answers = [
            [
                choices.index(value)
                for choices, value in zip(ANSWERS, astuple(each.said), strict=True)
            ]
            for each in captions
        ]
        return questions(encoder(tokens).last_hidden_state, ended), torch.tensor(answers)

    fit("text", [*encoder.parameters(), *questions.parameters()], batch, rate=1e-3, steps=steps)
    tokenizer.save_pretrained(folder / "tokenizer")
    encoder.save_pretrained(folder / "text_encoder")
