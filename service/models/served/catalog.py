"""Catalogue of the models that requests can name: the default one, and those of MODELS.

It is read once, at the start. Requests know models by name, never by path.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from service.config.table import Config
from service.core.spec import LONGEST_MODEL
from service.errors import ConfigError, ModelNotFound, ModelUnavailable, ServiceError
from service.models import catalog
from service.models.defaults.known import UNKNOWN, Known, look, look_at, unreadable
from service.models.files import SUFFIX, hub_place
from service.models.served.about import created, licence, size
from service.models.source import Source

LISTED: Final = 20
"""Names that an error lists."""

DEFAULT: Final = ""
"""What the default model is called in requests, whatever its name is."""


@dataclass(frozen=True, kw_only=True)
class Served:
    """One model of the catalogue."""

    known: Known
    source: Source | None = None
    """None where it is nothing that could be loaded."""
    licence: str = ""
    """Empty where nothing tells."""
    size: int | None = None
    """Bytes of its weights; None where they are not here."""
    created: int = 0
    """Unix time of its weights; 0 where they are not here."""
    problem: str = ""
    """Why it cannot be used; empty if it can, as far as its small files tell."""

    @property
    def id(self) -> str:
        """Its name."""
        return self.known.model_id

    @property
    def here(self) -> bool:
        """Whether it need not be fetched first."""
        return self.source is not None and self.source.path is not None

    @property
    def address(self) -> str:
        """What MODEL_ID would be set to for it."""
        here = self.source.path if self.source else None
        return self.id if here is None or hub_place(here) else str(here)

    @property
    def family(self) -> str:
        """Its family, or that of its adapters, as its files tell; empty if they are not here."""
        known = self.known
        return (known.adapters or known.family) if self.here and not self.problem else ""


class ModelCatalog:
    """The models by name; of two models of one name the first counts."""

    def __init__(self, default: Served, others: Iterable[Served] = ()) -> None:
        self.default = default
        found: dict[str, Served] = {}
        same: dict[str, str] = {default.id: DEFAULT}
        for each in others:
            if each.id == default.id or _path(each) == _path(default) is not None:
                same[each.id] = DEFAULT
            else:
                found.setdefault(each.id, each)
        self._others, self._same = found, same
        for name in (*found, *same):
            for other in (name.removesuffix(SUFFIX), *catalog.names(name)):
                same.setdefault(other, same.get(name, name))

    @property
    def entries(self) -> tuple[Served, ...]:
        """All models, the default one first."""
        return self.default, *self._others.values()

    def key(self, name: str) -> str:
        """Return what the service calls a model by: its name, or empty for the default model.

        A name that the catalogue does not have is that of the default model, as an engine tells
        it.
        """
        name = self._same.get(name, name)
        return name if name in self._others else DEFAULT

    def __getitem__(self, key: str) -> Served:
        """Return a model by its key."""
        return self._others.get(key, self.default)

    def knows(self, name: str) -> bool:
        """Return whether a request can name a model so."""
        return name == DEFAULT or name in self._same or name in self._others

    def find(self, name: str) -> str:
        """Return the key of the model that a request names.

        Raises:
            ModelNotFound: there is none of this name; with those that there are.

        """
        if not self.knows(name):
            raise ModelNotFound(f"There is no model {name[:LONGEST_MODEL]!r}. {self._list()}")
        return self.key(name)

    def demand(self, key: str) -> None:
        """Refuse a model that cannot be used, as far as its small files tell.

        The default model is left to the engine, which is asked for it at every start.

        Raises:
            ModelUnavailable: with the reason.

        """
        found = self[key]
        if found.problem and key != DEFAULT:
            raise ModelUnavailable(f"The model {found.id} cannot be used: {found.problem}")

    def _list(self) -> str:
        names = [each.id for each in self.entries if not each.problem]
        more = len(names) - LISTED
        shown = ", ".join(names[:LISTED])
        return f"There are: {shown}{f' and {more} more' if more > 0 else ''} (GET /models)."


ONE: Final = ModelCatalog(Served(known=UNKNOWN))
"""A catalogue of nothing but a default model that nothing is known of."""


def catalog_of(config: Config) -> ModelCatalog:
    """Return the models that the settings allow.

    Raises:
        ConfigError: MODELS names something that is no folder, no file and no hub id.

    """
    default = _default(config)
    return ModelCatalog(default, (each for part in config.models for each in _named(part, config)))


def _default(config: Config) -> Served:
    known = look(config)
    try:
        source = catalog.resolve(config.model_id, config.model_cache_dir)
    except ServiceError as error:
        return Served(known=known, problem=error.detail)
    return _served(known, source)


def _served(known: Known, source: Source) -> Served:
    return Served(
        known=known,
        source=source,
        licence=licence(source),
        size=size(source),
        created=created(source),
    )


def _named(part: str, config: Config) -> Iterator[Served]:
    path = Path(part).expanduser()
    if path.is_dir() and not (path / catalog.INDEX).is_file():
        for entry in catalog.entries(path):
            if _is_one(entry):
                yield _read(entry.id, entry, config)
    elif path.exists():
        yield _read(path.name, catalog.Entry(id=path.name, path=path), config)
    elif part == catalog.DEMO_ID or catalog.is_hub_id(part):
        yield _read(part, None, config)
    else:
        raise ConfigError(
            f"MODELS={part}: must be a folder, a {SUFFIX} file or a hub id (organisation/name)"
        )


def _is_one(entry: catalog.Entry) -> bool:
    """Tell whether something in a folder is to be listed: other folders may lie there, too."""
    name, path = entry.id, entry.path
    if len(name) > LONGEST_MODEL or not name.isprintable():
        return False
    if path.suffix in catalog.FILES or path.name.startswith(catalog.HUB):
        return True
    # The configuration of a single file is the folder next to it that has its name.
    return (path / catalog.INDEX).is_file() and not path.with_name(path.name + SUFFIX).exists()


def _read(name: str, entry: catalog.Entry | None, config: Config) -> Served:
    cache = config.model_cache_dir
    source = None
    try:
        source = entry.source() if entry else catalog.resolve(name, cache)
        if source.path is None and catalog.offline():
            raise catalog.missing_offline(name, cache)
        known = look_at(source, config)
    except (ServiceError, OSError) as error:
        problem = error.detail if isinstance(error, ServiceError) else str(error)
        return Served(known=unreadable(name), source=source, problem=problem)
    return _served(known, source)


def _path(model: Served) -> Path | None:
    here = model.source is not None and model.source.path
    return here.resolve() if here else None
