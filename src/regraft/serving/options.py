"""What `regraft serve` can be told."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from regraft.core.options import Options, option, require, step
from regraft.features.options import StoreOptions
from regraft.inference.options import EngineOptions
from regraft.pipeline.options import TopOptions, names

SHORTEST_TOKEN = 16  # characters


@dataclass(frozen=True, kw_only=True)
class ServerOptions(Options):
    """Where the server listens, who may ask, and how much."""

    GROUP = "Server"

    host: str = option("127.0.0.1", "address to listen at; any but this machine's own needs a token", "Main options")
    port: int = option(8000, "port to listen at; 0: any that is free", "Main options")
    workers: int | None = option(None, "threads that decode and compute; none: one more than there are cores")
    token: str | None = option(
        None, "what each request must bring; none: REGRAFT_TOKEN's, or beyond this machine a new one, which is printed"
    )
    hosts: str | None = option(
        None, "names by which it may be called, with commas between, besides localhost and addresses"
    )
    origins: str | None = option(
        None, "web pages that may ask it, such as https://shop.example, with commas between; none: its own alone"
    )
    max_mb: float = option(32.0, "largest request, in megabytes")
    max_megapixels: float = option(50.0, "largest image, in millions of pixels")
    max_images: int = option(64, "most images in one request")
    queue: int = option(64, "requests that may wait; one more is answered 503 at once")
    timeout: float = option(30.0, "seconds for a request to arrive, and for its answer")

    def check(self) -> None:
        """Raise UsageError for a value out of range."""
        require(0 <= self.port < 1 << 16, "port", self.port, "0 to 65535")
        require(self.workers is None or self.workers >= 1, "workers", self.workers, "1 or more, or none")
        for name in ("max_images", "queue"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        for name in ("max_mb", "max_megapixels", "timeout"):
            require(getattr(self, name) > 0, name, getattr(self, name), "a number above 0")
        long = self.token is None or (len(self.token) >= SHORTEST_TOKEN and self.token.isascii())
        require(long, "token", "***", f"{SHORTEST_TOKEN} or more ASCII characters")

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def max_bytes(self) -> int:
        """The largest request, in bytes."""
        return int(self.max_mb * 1e6)

    @property
    def allowed_hosts(self) -> list[str]:
        """Names by which the server may be called."""
        return ["localhost", *(name.lower() for name in names(self.hosts or ""))]

    @property
    def allowed_origins(self) -> list[str]:
        """Web pages that may ask, besides its own."""
        return [name.rstrip("/") for name in names(self.origins or "")]


@dataclass(frozen=True, kw_only=True)
class ServeOptions(Options):
    """The options of `regraft serve`."""

    server: ServerOptions = step(ServerOptions)
    top: TopOptions = step(TopOptions)
    engine: EngineOptions = step(EngineOptions)
    store: StoreOptions = step(StoreOptions)
