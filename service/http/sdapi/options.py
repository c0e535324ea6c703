"""``/options``: what a caller's later requests get where they say nothing.

AUTOMATIC1111 has one set of options for everybody. Here each caller has its own, so that nobody
switches the model of another; they are in memory only.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final

from aiohttp import web
from marshmallow import fields

from service.errors import ModelNotFound, ValidationFailed
from service.http.compat.reading import LooseSchema, number, read
from service.http.schema.decorators import described_body, docs
from service.http.sdapi.models import key_of, title
from service.http.sdapi.tasks import caller_of
from service.http.state import CONFIG, DISPATCHER, HASHES, MODELS
from service.models.served.catalog import DEFAULT

MODEL: Final = "sd_model_checkpoint"
CLIP: Final = "CLIP_stop_at_last_layers"
VAE: Final = "sd_vae"
FORMAT: Final = "samples_format"
QUALITY: Final = "jpeg_quality"

KEPT_SECONDS: Final = 12 * 3600.0
"""Since they were used last."""
MOST_CALLERS: Final = 1000
"""Those that were used least lately go first."""

FORMATS: Final = {
    "png": "image/png",
    "webp": "image/webp",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
}
OWN_VAE: Final = ("Automatic", "None", "", None)
"""Values of ``sd_vae`` that mean what is done anyway: the VAE is part of a model here."""
SHOWN: Final = 32
"""Refused options that are listed."""

FIXED: Final[Mapping[str, Any]] = {
    "eta_noise_seed_delta": 0,
    "face_restoration_model": None,
    "inpainting_mask_weight": 1.0,
    "initial_noise_multiplier": 1.0,
    "img2img_color_correction": False,
    "live_previews_enable": True,
    "show_progress_every_n_steps": 1,
    "return_grid": False,
    "grid_save": False,
    "samples_save": False,
    "save_images_add_number": False,
    "sd_lora": "None",
    "sd_hypernetwork": "None",
    "s_churn": 0.0,
    "s_noise": 1.0,
    "always_discard_next_to_last_sigma": False,
}
"""Options that clients read and that are always so."""

HASH: Final = "sd_checkpoint_hash"
FOLLOWING: Final = frozenset({HASH, "sd_checkpoints_limit"})
"""What follows from others: sent back it says nothing, also where it changed meanwhile, as the
hash of a model does that becomes known."""

Known = dict[str, Any]


class CallerOptions:
    """What callers have set, by name of the caller; bounded in number and in time."""

    def __init__(
        self, *, most: int = MOST_CALLERS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most, self._clock = most, clock
        self._held: OrderedDict[str, tuple[float, Known]] = OrderedDict()
        self.evicted: Callable[[], object] = lambda: None
        """Called when somebody's options go to make room."""

    def __len__(self) -> int:
        """Return the number of callers whose options are held."""
        self._drop_old()
        return len(self._held)

    def of(self, caller: str) -> Known:
        """Return what a caller has set, and keep it for longer."""
        self._drop_old()
        if caller not in self._held:
            return {}
        _, found = self._held.pop(caller)
        self._held[caller] = self._clock(), found
        return dict(found)

    def set(self, caller: str, values: Mapping[str, Any]) -> None:
        """Add to what a caller has set; None takes an option back."""
        found = {**self.of(caller), **values}
        found = {name: value for name, value in found.items() if value is not None}
        self._held.pop(caller, None)
        if found:
            self._held[caller] = self._clock(), found
        if len(self._held) > self._most:
            self._held.popitem(last=False)
            self.evicted()

    def _drop_old(self) -> None:
        limit = self._clock() - KEPT_SECONDS
        while self._held and next(iter(self._held.values()))[0] < limit:
            self._held.popitem(last=False)


def shown(request: web.Request, held: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options as ``GET /options`` shows them to a caller who has set ``held``."""
    models = request.app[MODELS]
    key = model_of(request, held)
    known = request.app[HASHES].known(key)
    return {
        MODEL: title(request, key),
        HASH: known,
        VAE: "Automatic",
        CLIP: held.get(CLIP, 1),
        FORMAT: held.get(FORMAT, "png"),
        QUALITY: held.get(QUALITY, 90),
        "enable_pnginfo": not request.app[CONFIG].bare_images,
        **FIXED,
        "sd_checkpoints_limit": len(models.entries),
    }


def model_of(request: web.Request, held: Mapping[str, Any]) -> str:
    """Return the key of a caller's model; the default one where that is gone."""
    name = held.get(MODEL, DEFAULT)
    return request.app[MODELS].key(name) if name else DEFAULT


def understood(
    request: web.Request, given: Mapping[str, Any], held: Mapping[str, Any]
) -> tuple[Known, dict[str, str]]:
    """Return the options that are known, with their values here, and why others are refused.

    What is as it is anyway is no change, and not refused: clients send everything back.

    Raises:
        ModelNotFound: there is no model of that name.
        ValidationFailed: a value cannot be.

    """
    now = shown(request, held)
    known: Known = {}
    refused: dict[str, str] = {}
    for name, value in given.items():
        if name in READ:
            if value is not None:
                known[name] = READ[name](request, value)
        elif name in FOLLOWING:
            continue
        elif name not in now:
            refused[name] = "is not known here"
        elif number(value) != now[name] and not (name == VAE and value in OWN_VAE):
            refused[name] = f"cannot be changed; it is {now[name]!r}"
    return known, refused


def listed(refused: Mapping[str, str]) -> dict[str, str]:
    """Return as many of the refused options as an answer lists, with bounded names."""
    found = {name[:64]: words for name, words in list(refused.items())[:SHOWN]}
    if len(refused) > SHOWN:
        found["…"] = f"{len(refused) - SHOWN} more"
    return found


def _model(request: web.Request, value: Any) -> str:
    if not isinstance(value, str):
        raise ModelNotFound(f"{MODEL} must be the title of a model, as /sdapi/v1/sd-models lists.")
    return request.app[MODELS][key_of(request, value)].id


def _clip(request: web.Request, value: Any) -> int:
    key = model_of(request, {})
    most = request.app[DISPATCHER].limits(key).max_clip_skip
    found = number(value)
    if not isinstance(found, int | float) or isinstance(found, bool) or not 0 <= found <= most:
        raise ValidationFailed({CLIP: [f"must be a whole number from 1 to {most}"]})
    return max(1, int(found))


def _format(request: web.Request, value: Any) -> str:
    del request
    if not isinstance(value, str) or value.lower() not in FORMATS:
        raise ValidationFailed({FORMAT: [f"must be one of {', '.join(FORMATS)}"]})
    return value.lower()


def _quality(request: web.Request, value: Any) -> int:
    del request
    found = number(value)
    if not isinstance(found, int | float) or isinstance(found, bool) or not 1 <= found <= 100:  # noqa: PLR2004 - per cent
        raise ValidationFailed({QUALITY: ["must be a whole number from 1 to 100"]})
    return int(found)


OPTIONS: Final = web.AppKey("options", CallerOptions)

READ: Final[Mapping[str, Callable[[web.Request, Any], Any]]] = {
    MODEL: _model,
    CLIP: _clip,
    FORMAT: _format,
    QUALITY: _quality,
}
"""What reads the options that can be set."""


SetOptions: Final = LooseSchema.from_dict(
    {
        MODEL: fields.String(metadata={"description": "Title of a model."}),
        CLIP: fields.Integer(metadata={"description": "Layer of the text encoder, from the end."}),
        FORMAT: fields.String(metadata={"description": f"One of {', '.join(FORMATS)}."}),
        QUALITY: fields.Integer(metadata={"description": "From 1 to 100, also of WebP."}),
    },
    name="SetOptions",
)


@docs(summary="Return the caller's options.")
async def get_options(request: web.Request) -> web.Response:
    """Answer with what the caller has set, and with what cannot be set."""
    return web.json_response(shown(request, request.app[OPTIONS].of(caller_of(request))))


@described_body(SetOptions(), example={FORMAT: "webp"})
@docs(
    summary="Set options for later requests of the caller.",
    description=(
        f"{MODEL}, {CLIP}, {FORMAT} and {QUALITY} can be set; each caller has its own, for "
        "twelve hours after their last use. Everything that `GET` answers may be sent back. The "
        "answer is null, or names under `refused` what was not changed, and why."
    ),
    errors=(ValidationFailed, ModelNotFound),
)
async def set_options(request: web.Request) -> web.Response:
    """Take the options that are known, and list the others."""
    caller, held = caller_of(request), request.app[OPTIONS].of(caller_of(request))
    known, refused = understood(request, await read(request), held)
    request.app[OPTIONS].set(caller, known)
    return web.json_response({"refused": listed(refused)} if refused else None)
