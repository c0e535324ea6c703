"""Where the service may listen, given who may come in."""

import structlog

from service.addresses import is_loopback
from service.config import Config
from service.errors import ConfigError

log = structlog.get_logger(__name__)


def check(config: Config) -> None:
    """Refuse to listen where other machines reach it while everybody may come in.

    Raises:
        ConfigError: with the three ways out.

    """
    if is_loopback(config.api_host):
        return
    if not (config.api_keys or config.api_keys_file):
        if not config.allow_unauthenticated:
            raise ConfigError(
                f"API_HOST={config.api_host}: other machines reach it, and there are no keys. "
                "Set API_KEYS or API_KEYS_FILE, or API_HOST=127.0.0.1, or, if everybody who "
                "reaches it may use it, ALLOW_UNAUTHENTICATED=true."
            )
        log.warning(
            "service_open_to_everybody",
            host=config.api_host,
            cure="set API_KEYS or API_KEYS_FILE",
        )
    elif not config.metrics_token:
        log.warning("metrics_open_to_everybody", host=config.api_host, cure="set METRICS_TOKEN")
