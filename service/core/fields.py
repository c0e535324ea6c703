"""How a field of a request is declared: once, for all that reads, writes or explains it."""

from dataclasses import dataclass, field, is_dataclass, replace
from typing import Any, Final

REQUIRED: Final[Any] = object()
"""Default of a field that a request must have."""


@dataclass(frozen=True)
class Setting:
    """A limit that a setting gives."""

    name: str


@dataclass(frozen=True, kw_only=True)
class RequestField:
    """What a request may say about one thing, what it means, and where it shows."""

    name: str = ""
    kind: type = str
    help: str
    """What it means, and in a second sentence how to ask: for API, command and documents."""
    example: Any = None
    """None for the default."""
    default: Any = REQUIRED
    default_setting: str = ""
    """Name of the setting that replaces the default."""
    low: Any = None
    high: Any = None
    """Of a text: its characters. Both limits are numbers or a ``Setting``."""
    multiple: int = 1
    choices: tuple[str, ...] = ()
    catalog: bool = False
    """Whether it is a name of a catalogue, which is read at the start."""
    blank: bool = True
    """Whether a text may be empty or nothing but white space."""
    entries: type | None = None
    """Dataclass of the entries of a list; ``high`` is then the most that there may be."""
    random: int | None = None
    """What asks for a value of the service's choice, which is then the default."""
    infotext: str = ""
    """Its label in AUTOMATIC1111's text; empty for none."""
    rare: bool = False
    """Whether that text leaves it out where it says nothing new."""

    needs: tuple[str, ...] = ()
    """Fields of which one must ask for something, or this one has no effect; it may be one of them.
    Answers and rows have it only then."""

    @property
    def is_object(self) -> bool:
        """Whether it is a JSON object, or an image that is one for the time being."""
        return is_dataclass(self.kind)

    @property
    def required(self) -> bool:
        """Whether a request must have it."""
        return self.default is REQUIRED

    @property
    def meaning(self) -> str:
        """What it means, also in an answer, which asks for nothing."""
        return f"{self.help.partition('. ')[0].rstrip('.')}."

    @property
    def is_text(self) -> bool:
        """Whether it is free text, which a user wrote."""
        return self.kind is str and not self.choices and not self.catalog

    def within(self, settings: object) -> "RequestField":
        """Return the field with the default and the limits of these settings."""
        default = getattr(settings, self.default_setting) if self.default_setting else self.default
        return replace(
            self,
            default=default if self.random is None else self.random,
            example=default if self.example is None else self.example,
            low=_given(self.low if self.random is None else self.random, settings),
            high=_given(self.high, settings),
        )


def _given(limit: Any, settings: object) -> Any:
    return getattr(settings, limit.name) if isinstance(limit, Setting) else limit


def asked(help_text: str, **about: Any) -> Any:
    """Declare a field of a request in the body of a dataclass; see ``RequestField``."""
    declared = RequestField(help=help_text, **about)
    default = {} if declared.required else {"default": declared.default}
    return field(metadata={"asked": declared}, **default)
