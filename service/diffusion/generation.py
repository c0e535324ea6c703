"""What goes into a generation and what comes out of it: plain values, no torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """What a picture is made from; width and height in pixels."""

    prompt: str
    negative_prompt: str = ""
    width: int = 512
    height: int = 512
    steps: int = 20
    guidance_scale: float = 7.5
    sampler: str = "dpmpp_2m"
    seed: int = 0
    num_images: int = 1

    @property
    def seeds(self) -> tuple[int, ...]:
        """One seed per picture: the asked one and those that follow it, modulo 2**32."""
        return tuple((self.seed + i) % 2**32 for i in range(self.num_images))


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One finished picture: 8-bit RGB rows from the top, and the seed it came from."""

    width: int
    height: int
    pixels: bytes
    seed: int
    unsafe: bool = False
    """The safety checker blacked it out."""


@dataclass(frozen=True, kw_only=True)
class StageTimes:
    """Seconds of GPU time by stage; shared steps are divided among those who shared them."""

    text_encode: float = 0.0
    denoise: float = 0.0
    vae_decode: float = 0.0
    safety: float = 0.0

    @property
    def total(self) -> float:
        """All stages together."""
        return self.text_encode + self.denoise + self.vae_decode + self.safety


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What is loaded, and on what."""

    model_id: str
    version: str
    """What answers carry as ``model_version``."""
    family: str
    """``sd`` (1.x and 2.x) or ``sdxl``."""
    demo: bool
    device: str
    """``cpu`` or the GPU's own name."""
    gpu: bool
    dtype: str
    load_seconds: float
    prompt_tokens: int = 77
    """Longest prompt the text encoder reads, in tokens, its two marks included."""
    prediction_type: str = "epsilon"
    """What the UNet predicts: ``epsilon``, ``v_prediction`` or ``sample``."""
    prediction_from: str = "default"
    """What said so: a file, a marker in the weights, a setting."""
    configuration: str = ""
    """Where the shapes of the model's parts and its tokenizer come from."""
    ignored: tuple[str, ...] = ()
    """Groups of tensors in the file that are no part of the model."""
    samplers: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    """By sampler the numbers of steps that it can take with this model, as ranges from and to;
    a sampler that is left out can take any."""

    def takes(self, sampler: str, steps: int) -> bool:
        """Whether a sampler can take so many steps with this model."""
        ranges = self.samplers.get(sampler)
        return ranges is None or any(first <= steps <= last for first, last in ranges)


@dataclass(frozen=True, kw_only=True)
class MemoryUse:
    """The engine's own view of its memory, in bytes; on a CPU the GPU figures are 0."""

    allocated: int = 0
    reserved: int = 0
    peak: int = 0
    total: int = 0
    host_resident: int = 0


@dataclass(frozen=True, kw_only=True)
class Stepped:
    """One denoising step of one batch is done."""

    progress: dict[str, int] = field(default_factory=dict)
    """Steps done so far by job id, averaged down over a job's pictures."""
    batch_size: int
    """Pictures that moved in this step."""
    pixels: int
    """Width times height, summed over those pictures."""
    seconds: float
    shares: dict[str, float] = field(default_factory=dict)
    """Those seconds by job id, divided evenly over the pictures."""
    memory: MemoryUse = MemoryUse()


@dataclass(frozen=True, kw_only=True)
class Previewed:
    """A small picture of an unfinished one: 8-bit RGB rows, a pixel per latent cell."""

    job_id: str
    step: int
    """Steps done when it was made."""
    width: int
    height: int
    pixels: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class JobFinished:
    """All pictures of a job are made."""

    job_id: str
    pictures: tuple[Picture, ...]
    times: StageTimes = StageTimes()
    memory: MemoryUse = field(default=MemoryUse(), compare=False)
    """After the decode, which takes the most."""
    prompt_tokens_cut: int = 0
    """Tokens of the prompt that the text encoder could not read."""


@dataclass(frozen=True, kw_only=True)
class JobFailed:
    """A job ended with an error of the class that ``code`` names in ``service.errors``."""

    job_id: str
    code: str
    detail: str
    times: StageTimes = field(default=StageTimes(), compare=False)
    """What it had cost; two reports are the same whatever the clock said."""


@dataclass(frozen=True, kw_only=True)
class JobCancelled:
    """A job left the batch because it was told to."""

    job_id: str
    steps_done: int = 0
    times: StageTimes = field(default=StageTimes(), compare=False)


@dataclass(frozen=True, kw_only=True)
class OutOfMemoryHit:
    """Memory ran out at a stage, and what is done about it."""

    stage: str
    """``text_encode``, ``denoise``, ``vae_decode`` or ``safety``."""
    batch_size: int
    rung: str = "fail"
    """What is tried next: ``free_cache``, ``split_batch``, ``vae_tiling``, ``offload``; or
    ``fail``: the job it belongs to fails."""
    seconds: float = field(default=0.0, compare=False)
    """Work that is lost; no job's ``StageTimes`` hold it."""


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """How much memory one picture may take beyond the model, and what it will take."""

    available: int
    """Bytes; on a CPU those of the host."""
    needs: Mapping[str, tuple[float, float]]
    """By stage: bytes that a picture of any size takes, and bytes for each of its pixels."""
    known: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    """By stage and pixels: what pictures took that were made."""
    relief: Mapping[str, int] = field(default_factory=dict)
    """By stage: bytes that become free when the rest of the model leaves the device."""

    def need(self, pixels: int) -> dict[str, int]:
        """Return the bytes that one picture takes, by stage."""
        return {
            stage: self.known.get(stage, {}).get(pixels, round(fixed + each * pixels))
            for stage, (fixed, each) in self.needs.items()
        }

    def fits(self, pixels: int) -> bool:
        """Whether one picture can be made, if need be with the last means against a lack."""
        return all(
            need <= self.available + self.relief.get(stage, 0)
            for stage, need in self.need(pixels).items()
        )

    @property
    def most_pixels(self) -> float:
        """Pixels of the largest picture that can be made."""
        return min(
            (
                max(self.available + self.relief.get(stage, 0) - fixed, 0) / each
                for stage, (fixed, each) in self.needs.items()
                if each > 0
            ),
            default=math.inf,
        )


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """The largest batch that gained anything when it was measured."""

    batch: int
    size: int
    """Width and height of the pictures it was measured with."""
    seconds: Mapping[int, float]
    """Of one step, by the pictures in it."""


@dataclass(frozen=True, kw_only=True)
class Usual:
    """How long a step takes, measured before any request came."""

    pixels: int
    """Of one picture."""
    pictures: int
    seconds: float


Outcome = Stepped | Previewed | JobFinished | JobFailed | JobCancelled | OutOfMemoryHit
"""What the step loop reports."""
