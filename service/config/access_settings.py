"""The settings of connections and of who may come in: the first rows of the table."""

from dataclasses import dataclass

from service.config.addresses import Hosts, Networks, Origins
from service.config.credentials import Keys, Token
from service.config.setting import setting


@dataclass(frozen=True, kw_only=True)
class AccessSettings:
    """Settings of a service's connections, bodies and keys."""

    # Access.
    api_host: str = setting(
        "127.0.0.1", "Address to listen on. :: listens on every address, IPv4 included."
    )
    api_port: int = setting(
        8000, "Port to listen on. 0 takes a free port.", minimum=0, maximum=65535
    )
    max_body_bytes: int = setting(65_536, "Largest request body in bytes.", minimum=1024)
    max_image_bytes: int = setting(
        16_777_216, "Largest image that a request may bring, in bytes.", minimum=1024
    )
    max_image_pixels: int = setting(
        12_582_912,
        "Most pixels of an image that a request may bring. Reading one takes up to 17 bytes of "
        "memory for each.",
        minimum=4096,
    )
    max_connections: int = setting(
        512,
        "Most open connections. A further one closes the connection that has been idle "
        "longest, or gets 503.",
        minimum=1,
    )
    max_connections_per_address: int = setting(
        0,
        "Most open connections of one client: an IPv4 address or an IPv6 /64 network; behind "
        "TRUSTED_PROXIES, the client that the proxy names. 0 allows a quarter of "
        "MAX_CONNECTIONS.",
        minimum=0,
    )
    max_event_streams_per_key: int = setting(
        16, "Most open event streams per API key; without keys, per client.", minimum=1
    )
    header_timeout_seconds: float = setting(
        20.0, "Time limit for receiving a request's headers.", minimum=0.01
    )
    body_timeout_seconds: float = setting(
        30.0, "Time limit for receiving a request's body.", minimum=0.01
    )
    send_timeout_seconds: float = setting(
        30.0,
        "Period over which a client must read at least 1 KiB a second of its answer. Slower "
        "clients are disconnected.",
        minimum=0.01,
    )

    # Who may come in.
    api_keys: Keys = setting(  # noqa: RUF009 - it is immutable
        Keys(),
        "Comma-separated API keys as name:secret. Without keys, everybody may use the service.",
        secret=True,
    )
    api_keys_file: str = setting(
        "",
        "File of API keys, to use instead of API_KEYS. One per line: name:secret [rate=30] "
        "[burst=5] [images=500] [priority=2] [webhook_secret=SECRET].",
        path=True,
    )
    metrics_token: Token = setting(  # noqa: RUF009 - it is immutable
        Token(),
        "Bearer token that /metrics requires. API keys do not open /metrics then.",
        secret=True,
    )
    allow_unauthenticated: bool = setting(
        False, "Allow other machines to connect without API keys. Set ALLOWED_HOSTS with it."
    )
    allowed_hosts: Hosts = setting(  # noqa: RUF009 - it is immutable
        Hosts(),
        "Comma-separated Host names to accept. Without keys on a loopback address, localhost "
        "and loopback addresses are always accepted, and no others unless they are listed "
        "here.",
    )
    cors_origins: Origins = setting(  # noqa: RUF009 - it is immutable
        Origins(), "Comma-separated origins of web pages that may call the service. * allows all."
    )
    trusted_proxies: Networks = setting(  # noqa: RUF009 - it is immutable
        Networks(),
        "Comma-separated addresses or networks of proxies whose X-Forwarded-For and "
        "X-Forwarded-Prefix are trusted.",
    )
    auth_failures_per_minute: int = setting(
        10,
        "Wrong API keys that one address may send in a minute before it is blocked for a "
        "while. 0 sets no limit.",
        minimum=0,
    )
    rate_limit_per_minute: float = setting(
        0, "Image requests per minute for each API key. 0 sets no limit.", minimum=0
    )
    rate_limit_burst: int = setting(
        10, "Burst size: image requests an API key may send at once.", minimum=1
    )
    quota_images_per_day: int = setting(
        0, "Images in any 24 hours for each API key. 0 sets no limit.", minimum=0
    )

    @property
    def connections_per_address(self) -> int:
        """Return how many connections one client may have."""
        return self.max_connections_per_address or max(1, self.max_connections // 4)
