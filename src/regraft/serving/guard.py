"""Who may ask: the Host and the Origin of each request are checked, and its token, before anything is read of it.

A web page that a user visits can reach a server on the user's own machine. What it must not do: be taken for the
server's own page by a name that it controls (DNS rebinding: the Host is then that name), or have it work (the
browser then says the page's Origin).
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from regraft.serving.options import ServerOptions

OPEN = frozenset(
    {"/", "/page.js", "/shared.js", "/style.css", "/health", "/ready"}
)  # without a token: they say nothing of the model
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
}


class Guard:
    """Passes on what may be asked, and adds to each answer what a browser is to keep to."""

    def __init__(self, app: ASGIApp, options: ServerOptions, token: str | None) -> None:
        self.app, self.options, self.token = app, options, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 400, 401 or 403, or pass the request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = self._refusal(scope["path"], Headers(scope=scope)) or self.app
        await answer(scope, receive, send_with_headers)

    def _refusal(self, path: str, headers: Headers) -> JSONResponse | None:
        host = headers.get("host", "")
        if not self._is_known(host):
            return _error(400, "The Host is unknown; name it with --hosts to allow it.")
        origin = headers.get("origin")
        if origin and urlsplit(origin).netloc != host and origin not in self.options.allowed_origins:
            return _error(403, "Another web page's request; name the page with --origins to allow it.")
        if self.token and path not in OPEN and not self._has_token(headers.get("authorization", "")):
            answer = _error(401, "A token is needed: the header Authorization: Bearer TOKEN.")
            answer.headers["www-authenticate"] = "Bearer"
            return answer
        return None

    def _is_known(self, host: str) -> bool:
        """Whether a Host is an address, which no foreign name leads to, or a name that is allowed."""
        match = re.fullmatch(r"\[([0-9a-f:.]+)\](?::\d+)?|([a-z0-9_.-]+)(?::\d+)?", host.lower())
        name = match and (match[1] or match[2])
        if not name or name in self.options.allowed_hosts:
            return bool(name)
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _has_token(self, authorization: str) -> bool:
        kind, _, token = authorization.partition(" ")
        return kind.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), (self.token or "").encode())


def _error(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": message}, status)
