"""Who comes in, and with how much."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import logging
import time
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spiritlm_plugin.serving.errors import RequestError, busy
from spiritlm_plugin.serving.metrics import Metrics
from spiritlm_plugin.serving.settings import Settings

logger = logging.getLogger(__name__)

SUBPROTOCOL = "spiritlm"
# What a key is offered as, by those who cannot set a header.
_KEY = "key."
# Without a key: how the server is, and the page, which asks for it.
_OPEN = ("/", "/health", "/favicon.ico")
_OPEN_FOLDER = "/page/"
# Named in metrics also where a request comes no further than here.
_ROUTES = (
    *_OPEN[:2],
    "/metrics",
    "/v1/models",
    "/v1/audio/speech",
    "/v1/audio/transcriptions",
    "/v1/chat/completions",
)


class Gate:
    """Lets requests in that may come, and no more than there is room for.

    Arguments
    ---------
    app : ASGI application
        Behind it.
    settings : Settings
        Say who may come.
    metrics : Metrics
        Count them.
    """

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics):
        self.app = app
        self.settings = settings
        self.metrics = metrics
        self.requests = 0
        self.connections = 0
        self.bytes = 0

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer, or let the app answer."""
        if scope["type"] == "http":
            await self._request(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._connection(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _request(
        self, scope: Scope, receive: Receive, send: Send
    ) -> None:
        begun = time.perf_counter()
        status: int | None = None

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await asyncio.wait_for(send(message), self.settings.send_seconds)

        self.requests += 1
        body = _Body(receive, self)
        try:
            self._check(scope)
            self._check_room(scope)
            await self.app(scope, body, counted)
        except RequestError as error:
            await error.response()(scope, receive, counted)
        except (TimeoutError, asyncio.TimeoutError):
            if status is None:
                raise
            # A client has stopped to read; the server cuts it off.
        finally:
            self.requests -= 1
            self.bytes -= body.size
            seconds = time.perf_counter() - begun
            route, code = _route_of(scope), status or 500
            self.metrics.requests.labels(route, str(code)).inc()
            self.metrics.seconds.labels(route).observe(seconds)
            logger.info(
                "%s %s %d %.3f s", scope["method"], route, code, seconds
            )

    async def _connection(
        self, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self.connections += 1
        self.metrics.connections.inc()
        try:
            self._check(scope)
            if self.connections > self.settings.connections:
                raise busy("there are too many conversations", "full")
            await self.app(scope, receive, send)
        except RequestError as error:
            await _deny(error.response(), scope, receive, send)
        finally:
            self.connections -= 1
            self.metrics.connections.dec()

    def _check(self, scope: Scope) -> None:
        """Raise RequestError if one may not come in."""
        headers = Headers(scope=scope)
        hosts = self.settings.hosts
        if hosts and _host_name(headers.get("host", "")) not in hosts:
            raise RequestError(
                403, "this server is not called by that name", code="host"
            )
        if not self._may_come_from(headers):
            raise RequestError(
                403,
                "pages of that origin may not use this server",
                code="origin",
            )
        path = scope["path"]
        is_open = path in _OPEN or path.startswith(_OPEN_FOLDER)
        key = self.settings.key
        if key is None or (is_open and scope["type"] == "http"):
            return
        if not hmac.compare_digest(_given_key(headers), key.encode()):
            raise RequestError(
                401,
                "the API key is missing or wrong",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def _check_room(self, scope: Scope) -> None:
        """Raise RequestError if a request is too large, or one too many."""
        # One that is none is refused, or found out, by what reads the body.
        length = Headers(scope=scope).get("content-length", "")
        most = self.settings.body_bytes
        if length.isdecimal() and int(length[:18]) > most:
            raise _too_large(self.settings)
        if self.requests > self.settings.requests and scope["path"].startswith(
            "/v1/"
        ):
            raise busy("too many requests are answered", "full")

    def _may_come_from(self, headers: Headers) -> bool:
        origin = headers.get("origin")
        if origin is None or origin in self.settings.origins:
            return True
        own = headers.get("host", "").lower()
        try:
            return bool(own) and urlsplit(origin.lower()).netloc == own
        except ValueError:
            return False


class _Body:
    """What comes with a request, as long as it is not too large or slow."""

    def __init__(self, receive: Receive, gate: Gate):
        self.receive = receive
        self.gate = gate
        self.settings = gate.settings
        self.size = 0
        self.until = time.monotonic() + gate.settings.body_seconds
        self.ended = False

    async def __call__(self) -> Message:
        if self.ended:
            return await self.receive()
        try:
            left = max(self.until - time.monotonic(), 0)
            message = await asyncio.wait_for(self.receive(), left)
        except (TimeoutError, asyncio.TimeoutError) as error:
            raise RequestError(
                408,
                "the request took more than "
                f"{self.settings.body_seconds:g} s to arrive",
                code="timeout",
            ) from error
        length = len(message.get("body", b""))
        self.size += length
        self.gate.bytes += length
        if self.size > self.settings.body_bytes:
            raise _too_large(self.settings)
        if self.gate.bytes > self.settings.total_bytes:
            raise busy("too much is being sent", "full")
        self.ended = not message.get("more_body", False)
        return message


def _too_large(settings: Settings) -> RequestError:
    return RequestError(
        413,
        f"the request has more than {settings.body_bytes} bytes, which is the "
        "limit here",
        code="too_large",
        headers={"Connection": "close"},
    )


def _route_of(scope: Scope) -> str:
    path = getattr(scope.get("route"), "path", scope["path"])
    return path if path in _ROUTES else "other"


def _host_name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _given_key(headers: Headers) -> bytes:
    """Return the key of a header or of a subprotocol; empty without one."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return key.strip(" \t").encode("latin-1")  # as it was decoded
    for offered in offered_protocols(headers):
        if offered.startswith(_KEY):
            letters = offered[len(_KEY) :]
            try:
                padded = letters + "=" * (-len(letters) % 4)
                return base64.urlsafe_b64decode(padded)
            except (binascii.Error, ValueError):
                return b""
    return b""


def offered_protocols(headers: Headers) -> list[str]:
    """Return the subprotocols that a WebSocket's client offers."""
    offered = headers.get("sec-websocket-protocol", "")
    return [name.strip() for name in offered.split(",") if name.strip()]


async def _deny(
    response: Response, scope: Scope, receive: Receive, send: Send
) -> None:
    """Refuse a WebSocket, with the reason where the server can say it."""
    if "websocket.http.response" in scope.get("extensions", {}):
        await response(scope, receive, send)
    else:
        await send({"type": "websocket.close", "code": 1008})
