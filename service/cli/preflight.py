"""What is checked before anything listens, so that what cannot work ends in one line."""

import errno
import os
from importlib import util
from pathlib import Path
from typing import Final

from service.cli import cluster_check, gpu_check
from service.config.table import Config
from service.errors import FolderUnusable, ModelError, ModelUnsuitable, NotInstalled, StoreFull
from service.models import catalog, files
from service.models.source import Source
from service.models.vae import source as vae
from service.system import installation

PACKAGES: Final = (
    *("torch", "diffusers", "transformers"),
    *("accelerate", "safetensors", "huggingface_hub"),
)
"""What the engine imports; the service itself never does."""

TRIAL: Final = ".writable"
TRIAL_BYTES: Final = 4096


def check(config: Config, *, serving: bool = True) -> None:
    """Look at packages, model, folders and GPU; torch is not imported, which takes seconds.

    Without ``serving`` no jobs are kept, and DATA_DIR does not matter.

    Raises:
        ServiceError: with the cure; ``exits`` has the exit code.

    """
    far = serving and config.engine == "ray"
    if far:
        cluster_check.check(config)
    else:
        demand_packages()
        source = located(config)
    if config.data_dir and serving:
        demand_writable(Path(config.data_dir), "DATA_DIR", mode=0o700)
    if far:
        return  # Model and GPU are those of the nodes.
    demand_kind(source, config)
    for name in filter(None, (config.vae, config.tiny_vae)):
        vae.find(name, config.model_cache_dir, paths=True)
    gpu_check.check(config, source)


def located(config: Config) -> Source:
    """Return where the model is; one that is still to be downloaded has a folder for that.

    Raises:
        ModelMissing: it is not here, and there is no network.
        FolderUnusable, StoreFull: it cannot be downloaded to MODEL_CACHE_DIR.

    """
    source = catalog.resolve(config.model_id, config.model_cache_dir)
    if source.path is None:
        if catalog.offline():
            raise catalog.missing_offline(source.id, config.model_cache_dir)
        demand_writable(config.model_cache_dir, "MODEL_CACHE_DIR")
    return source


def demand_packages() -> None:
    """Refuse to start without what makes images.

    Raises:
        NotInstalled: with the line that installs it.

    """
    missing = [name for name in PACKAGES if util.find_spec(name) is None]
    if missing:
        raise NotInstalled(
            f"{', '.join(missing)} cannot be found. Install what the engine needs: "
            f"{installation.here().engine()}"
        )


def demand_kind(source: Source, config: Config) -> None:
    """Refuse what is here and cannot be a model of ours, whatever is done to its files.

    Another kind of model, parts that do not belong together, a single file without the
    configuration that it lacks, a ``recipe.json`` that asks for what no request may have. Damage is
    left to loading: the service then stays to say so.

    Raises:
        ModelUnsuitable: with what it is.
        FolderUnusable: the service's user may not read it.

    """
    if source.path is None or source.demo:
        return
    from service.models import layout  # noqa: PLC0415 - it needs a package of the engine
    from service.models.defaults import known  # noqa: PLC0415

    files.demand_readable(source.path if source.single_file else source.path / catalog.INDEX)
    if not source.single_file:
        layout.index_family(source.path)
    try:
        known.look_at(source, config)
    except ModelUnsuitable:
        raise
    except ModelError:
        return


def demand_writable(folder: Path, name: str, *, mode: int = 0o777) -> None:
    """Make a folder, and write into it once: permissions do not tell of read-only disks.

    Raises:
        FolderUnusable: it cannot be written.
        StoreFull: there is no room on its disk.

    """
    trial = folder / f"{TRIAL}-{os.getpid()}"
    try:
        folder.mkdir(mode=mode, parents=True, exist_ok=True)
        try:
            trial.write_bytes(bytes(TRIAL_BYTES))
        finally:
            trial.unlink(missing_ok=True)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StoreFull(
                f"{name}={folder}: its disk is full. Make room there, or name another folder."
            ) from error
        raise FolderUnusable(
            f"{name}={folder}: cannot be written ({error.strerror}). Make it writable for the "
            f"service's user{files.user()}, or name another folder."
        ) from error
