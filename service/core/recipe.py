"""The values that a kind of model wants for what a request leaves out."""

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a model brings for requests to it; None where it asks for nothing."""

    name: str = ""
    """For ``metadata.recipe``; empty for no recipe."""
    source: str = ""
    """What it was found by."""
    guessed: bool = False
    """Whether nothing but a name told."""
    steps: int | None = None
    guidance_scale: float | None = None
    guidance_rescale: float | None = None
    sampler: str | None = None
    schedule: str | None = None
    eta: float | None = None
    size: int | None = None
    """Width and height."""
    vae: str | None = None
    """Name of the VAE that decodes in place of the model's own."""
    stated: tuple[str, ...] = ()
    """Values that the model's ``recipe.json`` has itself."""
    cut: tuple[tuple[str, int], ...] = ()
    """Values that the limits of requests do not allow, each with the one that holds instead."""

    @property
    def warnings(self) -> list[str]:
        """What users of the model have to know."""
        return [*self._guess, *(self._too_much(name, held) for name, held in self.cut)]

    def warnings_for(self, used: Mapping[str, Container[int]]) -> list[str]:
        """Return what users of an image have to know that was drawn with these values."""
        cut = [self._too_much(name, held) for name, held in self.cut if held in used[name]]
        return [*self._guess, *cut]

    @property
    def _guess(self) -> list[str]:
        said = (
            f"The recipe {self.name} was guessed from the name of the model. If the images are "
            "wrong, write the right values into a recipe.json next to it."
        )
        return [said] if self.guessed else []

    def _too_much(self, name: str, held: int) -> str:
        return (
            f"The recipe {self.name} asks for {name} {self.values[name]}, and the limits of "
            f"requests allow {held}."
        )

    @property
    def values(self) -> dict[str, Any]:
        """What it asks for."""
        return {name: value for name in VALUES if (value := getattr(self, name)) is not None}


VALUES: Final = (
    "steps",
    "guidance_scale",
    "guidance_rescale",
    "sampler",
    "schedule",
    "eta",
    "size",
)
NO_RECIPE: Final = Recipe()
