"""The text encoder: a small CLIP that learned to read scenes out of captions, and its BPE."""

import json
from dataclasses import astuple, fields
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from .captions import UNSAID, caption
from .scene import COLOUR_NAMES, PLACE_NAMES, SUBJECT_NAMES, TIMES, Scene, training_scene

LENGTH = 77
WIDTH = 128
MERGES = 1000
START, END = "<|startoftext|>", "<|endoftext|>"
ANSWERS = {
    "time": (*TIMES, UNSAID),
    "place": (*PLACE_NAMES, UNSAID),
    "subject": SUBJECT_NAMES,
    "colour": (*COLOUR_NAMES, "none", UNSAID),
}
"""What can be said of each attribute."""


def build_tokenizer(folder: Path, seed: int = 0) -> CLIPTokenizer:
    """Learn byte-pair merges from captions; the vocabulary also holds every single byte."""
    rng = np.random.default_rng(seed)
    texts = [caption(training_scene(rng), rng).text for _ in range(20_000)]
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer = normalizers.Lowercase()
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Whitespace(),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    learner.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=MERGES + 600,
            initial_alphabet=alphabet,
            end_of_word_suffix="</w>",
            show_progress=False,
        ),
    )
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]][:MERGES]
    tokens = [*alphabet, *(letter + "</w>" for letter in alphabet)]
    tokens += ["".join(pair) for pair in merges] + [START, END]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    return CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=LENGTH
    )


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Build an untrained encoder of the size that the demo model affords."""
    vocabulary = tokenizer.get_vocab()
    end = vocabulary[END]
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=3 * WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
            hidden_act="gelu",
            bos_token_id=vocabulary[START],
            eos_token_id=end,
            pad_token_id=end,
        )
    )


def tokens_of(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """Return token ids of shape (texts, 77), padded and cut as the pipeline does."""
    ids: Tensor = tokenizer(
        texts, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt"
    ).input_ids
    return ids


def answers_of(said: Scene) -> list[int]:
    """Return the index of each attribute's answer, in the order of ``ANSWERS``."""
    return [
        ANSWERS[row.name].index(value)
        for row, value in zip(fields(said), astuple(said), strict=True)
    ]


class Questions(nn.Module):
    """Questions to the encoder: what time, place, subject and colour the text says.

    Each is asked of the token that ends the text and of the padding after it. Those are the
    positions that have seen all words, and most of what the UNet attends to.
    """

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(WIDTH, len(choices)) for choices in ANSWERS.values())

    def forward(self, hidden: Tensor, ended: Tensor) -> list[Tensor]:
        """Return logits per question; ``ended`` marks positions from the end token on."""
        weights = ended.to(hidden.dtype)
        at_end = hidden[torch.arange(len(hidden)), ended.int().argmax(dim=1)]
        pooled = (hidden * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)
        return [head(at_end) + head(pooled) for head in self.heads]


def train_text_encoder(folder: Path, *, steps: int, batch: int = 96) -> None:
    """Teach the encoder to answer the questions; saves it and its tokenizer in ``folder``."""
    tokenizer = build_tokenizer(folder / "tokenizer")
    encoder, questions = build_text_encoder(tokenizer), Questions()
    parameters = [*encoder.parameters(), *questions.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1e-3, total_steps=steps, pct_start=0.05
    )
    rng = np.random.default_rng(1)
    end = tokenizer.get_vocab()[END]
    for step in range(steps):
        captions = [caption(training_scene(rng), rng) for _ in range(batch)]
        tokens = tokens_of(tokenizer, [each.text for each in captions])
        # Captions are short: the padding beyond is all alike, so a part of it is enough.
        tokens = tokens[:, :40]
        hidden = encoder(tokens).last_hidden_state
        logits = questions(hidden, tokens.eq(end).cumsum(1) > 0)
        targets = torch.tensor([answers_of(each.said) for each in captions])
        losses = [nn.functional.cross_entropy(x, y) for x, y in zip(logits, targets.T, strict=True)]
        loss = torch.stack(losses).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            right = [
                (x.argmax(1) == y).float().mean().item()
                for x, y in zip(logits, targets.T, strict=True)
            ]
            print(
                f"text {step} loss {loss.item():.3f} right {[round(r, 3) for r in right]}",
                flush=True,
            )
    tokenizer.save_pretrained(folder / "tokenizer")
    encoder.save_pretrained(folder / "text_encoder")
    torch.save(questions.state_dict(), folder / "questions.pt")
