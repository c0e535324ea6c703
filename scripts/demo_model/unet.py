"""The denoiser: a small UNet, trained on cached latents, small images first."""

import math
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderTiny, DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from diffusers.training_utils import EMAModel
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel
from transformers import CLIPTextModel, CLIPTokenizer

from .autoencoder import Latents, Size, latents
from .captions import caption
from .scene import Scene
from .text_encoder import WIDTH, tokens_of

SCHEDULE: dict[str, Any] = {
    "beta_schedule": "linear",
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "prediction_type": "v_prediction",
    "num_train_timesteps": 1000,
}
"""Its end is practically pure noise (0.6 % of the signal): the brightness of the whole
image comes from the prompt, not from the noise."""

EMPTY_CAPTIONS = 0.1
PEAKS = frozenset({"mountains", "lake"})
MAX_SNR = 5.0
"""Errors count less where there is more signal than this (after min-SNR weighting, Hang et al.
2023, arXiv 2303.09556). Unlike there they count in full where there is hardly any signal: that is
where the prompt decides what the image shows, and half of all time steps are such."""

RATE = 1.2e-3
WARM_UP = 300
AVERAGE = 0.999
SAVE_EVERY = 120.0
"""Seconds between checkpoints."""


@dataclass(frozen=True)
class Share:
    """Images of one size: how many are drawn, how often they come, how many per worker."""

    size: Size
    images: int
    weight: float
    batch: int


SMALL = Share((128, 128), 5000, 1, 24)
_MIDDLE = (
    Share((256, 256), 4000, 0.86, 12),
    Share((384, 256), 500, 0.07, 8),
    Share((256, 384), 500, 0.07, 8),
)
_LARGE = (
    Share((256, 256), 4000, 0.19, 12),
    Share((512, 512), 1600, 0.61, 4),
    Share((384, 384), 500, 0.05, 6),
    Share((768, 512), 200, 0.06, 3),
    Share((512, 768), 150, 0.04, 3),
    Share((256, 768), 200, 0.05, 6),
)
PHASES = ((0.1, (SMALL,)), (0.46, _MIDDLE), (1, _LARGE))
"""What the training takes until a share of its time is over."""


def build_unet() -> UNet2DConditionModel:
    """Build an untrained UNet; cross-attention on the lower two levels only."""
    return UNet2DConditionModel(
        sample_size=64,
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 64, 128, 192),
        layers_per_block=1,
        down_block_types=("DownBlock2D",) * 2 + ("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2 + ("UpBlock2D",) * 2,
        cross_attention_dim=WIDTH,
        attention_head_dim=(1, 2, 4, 6),
        norm_num_groups=16,
    )


@lru_cache
def spotlight(rows: int, columns: int) -> Tensor:
    """Return weights of shape (rows, columns) that make the subject and the skyline count more.

    Sky and ground fill most of an image and are soon learnt; the subject is small, and what
    tells mountains from hills is a thin line of little contrast.
    """
    y = torch.linspace(0, 1, rows)[:, None]
    x = torch.linspace(0, 1, columns)[None, :]
    subject = torch.exp(-(((x - 0.5) / 0.24) ** 2) - ((y - 0.64) / 0.28) ** 2)
    skyline = torch.exp(-(((y - 0.47) / 0.13) ** 2))
    weights = 1 + 2 * subject + 1.5 * skyline
    return weights / weights.mean()


def odds_of(scenes: list[Scene]) -> np.ndarray:
    """Return how often each scene comes: peaks, and places without a subject, more often.

    They are what newcomers ask for first, and nothing big in the middle helps to tell them.
    """
    odds = np.array([1.0 + (s.place in PEAKS) + 2 * (s.subject == "none") for s in scenes])
    normalised: np.ndarray = odds / odds.sum()
    return normalised


class Training:
    """A resumable training run: weights, their average, optimiser and counters.

    Runs in each worker of a process group; the workers share gradients and stay in step.
    The folder has autoencoder/, text/tokenizer and text/text_encoder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rank, self.workers = distributed.get_rank(), distributed.get_world_size()
        self.vae = AutoencoderTiny.from_pretrained(folder / "autoencoder").eval()
        self.vae.to(memory_format=torch.channels_last)
        self.tokenizer = CLIPTokenizer.from_pretrained(folder / "text" / "tokenizer")
        self.encoder = CLIPTextModel.from_pretrained(folder / "text" / "text_encoder")
        self.unet = build_unet().to(memory_format=torch.channels_last)
        # Plain products train a fifth faster than the fused attention on a CPU.
        self.unet.set_attn_processor(AttnProcessor())
        self.average = EMAModel(self.unet.parameters(), decay=AVERAGE)
        self.optimizer = torch.optim.AdamW(
            self.unet.parameters(), lr=RATE, betas=(0.9, 0.99), weight_decay=0.01, fused=True
        )
        self.shared = DistributedDataParallel(self.unet, gradient_as_bucket_view=True)
        self.cached: dict[Size, Latents] = {}
        self.done: dict[str, Any] = {"step": 0, "seen": 0, "spent": 0.0}
        if (folder / "unet.pt").exists():
            state = torch.load(folder / "unet.pt", weights_only=True)
            self.done = state["done"]
            for part in state.keys() - {"done"}:
                getattr(self, part).load_state_dict(state[part])
        else:
            self.done["scaling"] = 1 / self._of(SMALL).values[:500].float().std().item()
        self.schedule = DDPMScheduler(**SCHEDULE)
        signal = self.schedule.alphas_cumprod
        snr = signal / (1 - signal)
        weights = (snr.clamp(max=MAX_SNR) + 1) / (snr + 1)
        self.weights = weights / weights.mean()
        self.rng = np.random.default_rng([7, self.done["step"], self.rank])
        torch.manual_seed(1000 * self.done["step"] + self.rank)

    def run(self, minutes: float) -> None:
        """Train until the run has lasted some minutes, earlier runs counted in."""
        began = time.monotonic() - self.done["spent"]
        losses: list[float] = []
        while (share := self._agreed((time.monotonic() - began) / 60 / minutes)) < 1:
            losses.append(self._step(share))
            if self.done["step"] % 100 == 0 and self.rank == 0:
                mean = np.mean(losses[-100:])
                print(f"unet {share:.1%} step {self.done['step']} loss {mean:.4f}", flush=True)
            if time.monotonic() - began - self.done["spent"] > SAVE_EVERY:
                self._save(time.monotonic() - began)
        self._save(time.monotonic() - began)

    @staticmethod
    def _agreed(share: float) -> float:
        """Return the first worker's share of the time, which decides for all."""
        told = torch.tensor([share], dtype=torch.float64)
        distributed.broadcast(told, 0)
        return told.item()

    def _step(self, share: float) -> float:
        clean, texts = self._batch(next(shares for until, shares in PHASES if share < until))
        count = len(clean)
        # One time step from each of `count` equal stretches: every batch has all noise levels.
        times = ((torch.randperm(count) + torch.rand(1)) / count * 1000).long()
        noise = torch.randn_like(clean)
        noisy = self.schedule.add_noise(clean, noise, times)
        with torch.autocast("cpu", torch.bfloat16):
            given = self.shared(noisy, times, texts).sample
        wanted = self.schedule.get_velocity(clean, noise, times)
        errors = (given.float() - wanted).square() * spotlight(*clean.shape[2:])
        loss = (self.weights[times] * errors.mean(dim=(1, 2, 3))).mean()
        for group in self.optimizer.param_groups:
            warm = min(1, (self.done["step"] + 1) / WARM_UP)
            group["lr"] = RATE * warm * 0.5 * (1 + math.cos(math.pi * share)) + 1e-6
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.unet.parameters(), 1.0)
        self.optimizer.step()
        self.average.step(self.unet.parameters())
        self.done["step"] += 1
        self.done["seen"] += count * self.workers
        return float(loss.item())

    def _batch(self, shares: tuple[Share, ...]) -> tuple[Tensor, Tensor]:
        """Return scaled latents and the text encoder's states of fresh captions for them."""
        odds = np.array([share.weight for share in shares])
        # All workers take the same size in a step, so that none waits for another.
        common = np.random.default_rng([8, self.done["step"]])
        share = shares[int(common.choice(len(odds), p=odds / odds.sum()))]
        known = self._of(share)
        chosen = self.rng.choice(len(known.scenes), share.batch, p=odds_of(known.scenes))
        clean = known.values[chosen].float() * self.done["scaling"]
        clean = clean.contiguous(memory_format=torch.channels_last)
        texts = [
            caption(known.scenes[i], self.rng).text if self.rng.random() >= EMPTY_CAPTIONS else ""
            for i in chosen
        ]
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            states: Tensor = self.encoder(tokens_of(self.tokenizer, texts)).last_hidden_state
        return clean, states.float()

    def _of(self, share: Share) -> Latents:
        if share.size not in self.cached:
            if self.rank > 0:
                distributed.barrier()  # The first worker draws and encodes; the others load.
            self.cached[share.size] = latents(self.folder, self.vae, share.size, share.images)
            if self.rank == 0:
                distributed.barrier()
        return self.cached[share.size]

    def _save(self, spent: float) -> None:
        self.done["spent"] = spent
        if self.rank == 0:
            parts = ("unet", "average", "optimizer")
            state = {part: getattr(self, part).state_dict() for part in parts}
            fresh = self.folder / "unet.pt.fresh"
            torch.save(state | {"done": self.done}, fresh)
            fresh.replace(self.folder / "unet.pt")


def train_unet(folder: Path, *, minutes: float, workers: int) -> None:
    """Train with some single-threaded workers: on few cores that beats one with many threads."""
    with TemporaryDirectory() as meeting:
        arguments = (folder, minutes, workers, str(Path(meeting) / "store"))
        spawn(_work, arguments, nprocs=workers)  # type: ignore[no-untyped-call]


def _work(rank: int, folder: Path, minutes: float, workers: int, store: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=workers
    )
    Training(folder).run(minutes)
    distributed.destroy_process_group()


def averaged_unet(folder: Path) -> tuple[UNet2DConditionModel, dict[str, Any]]:
    """Load the averaged weights of the run in a folder, and its counters."""
    state = torch.load(folder / "unet.pt", weights_only=True)
    unet = build_unet()
    average = EMAModel(unet.parameters())
    average.load_state_dict(state["average"])
    average.copy_to(unet.parameters())
    return unet.eval(), state["done"]
