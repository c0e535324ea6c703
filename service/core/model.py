"""What is loaded, and on what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from service.core.limits import CLIP_LAYERS, SD, Sizes
from service.core.recipe import NO_RECIPE, Recipe
from service.core.sampler import Sampler, Schedule
from service.core.spec import GenerationSpec


def facts_of(
    model_id: str = "", recipe: str = "", vae: str = "", warnings: Sequence[str] = ()
) -> dict[str, Any]:
    """Return what the metadata of an image say of the model that drew it, its version apart.

    The hash of its weights is known elsewhere.
    """
    facts = {"model": model_id, "model_hash": "", "recipe": recipe, "vae": vae}
    return {**facts, "warnings": list(warnings)}


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What is loaded, and on what."""

    model_id: str
    version: str
    """What answers carry as ``model_version``."""
    family: str
    """``sd`` (1.x and 2.x) or ``sdxl``."""
    adapters: str = ""
    """``sd1``, ``sd2`` or ``sdxl``: what its adapters are made for; empty where nothing tells."""
    sizes: Sizes = SD
    """Sizes of images that suit it."""
    max_clip_skip: int = CLIP_LAYERS
    """Layers of the text encoder that can guide its images, counted from the last."""
    recipe: Recipe = NO_RECIPE
    """What it wants where a request says nothing."""
    vae: str = ""
    """Name of the VAE that decodes; empty for the model's own."""
    demo: bool
    device: str
    """``cpu`` or the GPU's own name."""
    gpu: bool
    gpu_uuid: str = ""
    """As the driver writes it; empty on a CPU."""
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
    samplers: Mapping[Sampler, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    """By sampler the numbers of steps that it can take with this model, as ranges from and to;
    a sampler that is left out can take any."""
    schedules: tuple[Schedule, ...] = tuple(Schedule)
    """Noise schedules that exist for this model."""
    inpainting: bool = False
    """Whether its UNet takes a mask and a masked image, too: nine channels, not four."""

    def facts(self, request: GenerationSpec) -> dict[str, Any]:
        """Return what the metadata of a request's images say of the model, its version apart."""
        used = {"steps": (request.steps,), "size": (request.width, request.height)}
        warnings = self.recipe.warnings_for(used)
        return facts_of(self.model_id, self.recipe.name, self.vae, warnings)

    def takes(self, sampler: str, steps: int, schedule: str = Schedule.AUTOMATIC) -> bool:
        """Whether a sampler can take so many steps with this model, as far as is known.

        With a schedule that is not the model's own the engine finds out for each number of steps.
        """
        if schedule not in Sampler(sampler).schedules or schedule not in self.schedules:
            return False
        ranges = self.samplers.get(Sampler(sampler))
        if ranges is None or (ranges and schedule != Schedule.AUTOMATIC):
            return True
        return any(first <= steps <= last for first, last in ranges)
