"""The server's application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles

from spiritlm_plugin.inference.spiritlm import SpiritLM
from spiritlm_plugin.serving import (
    chat,
    conversation,
    speech,
    transcriptions,
)
from spiritlm_plugin.serving.errors import BUSY, RequestError, answer_errors
from spiritlm_plugin.serving.gate import Gate
from spiritlm_plugin.serving.metrics import CONTENT_TYPE, Metrics
from spiritlm_plugin.serving.settings import Settings
from spiritlm_plugin.serving.state import Server, server_of
from spiritlm_plugin.serving.worker import ModelThread

PAGE = Path(__file__).parent / "page"
# Nothing from elsewhere, and nothing that stands in the page itself.
_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "worker-src 'self' blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
# Of models, the best first.
_STATES = ("ready", "loading", "failed")
_PAGE_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def create_app(
    models: Mapping[str, SpiritLM | Callable[[], SpiritLM]],
    settings: Settings | None = None,
) -> FastAPI:
    """Return an application that serves models.

    Arguments
    ---------
    models : dict
        Models by their names, or functions that load them.
    settings : Settings, optional
        Limits, and who may use it.

    Raises
    ------
    ValueError
        If there is no model.

    Example
    -------
    >>> lm = SpiritLM.from_release(checkpoints, "base")
    >>> app = create_app({"base": lm}, Settings(audio_seconds=10))
    >>> app.title
    'Spirit LM'
    """
    if not models:
        raise ValueError("there is no model to serve; name one")
    settings, metrics = settings or Settings(), Metrics()
    threads = {
        name: ModelThread(name, _loader(model), settings, metrics)
        for name, model in models.items()
    }

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        for thread in threads.values():
            thread.start()
        yield
        for thread in threads.values():
            thread.stop()

    app = FastAPI(
        title="Spirit LM",
        lifespan=lifespan,
        docs_url=None,  # whose scripts come from elsewhere
        redoc_url=None,
    )
    app.state.server = Server(settings, metrics, threads)
    answer_errors(app)
    for module in (transcriptions, speech, chat, conversation):
        app.include_router(module.router)
    _add_pages(app)
    app.add_middleware(Gate, settings=settings, metrics=metrics)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],  # OpenAI's clients send some of their own
        )
    return app


def _loader(
    model: SpiritLM | Callable[[], SpiritLM],
) -> Callable[[], SpiritLM]:
    # A module can be called, too.
    return (lambda: model) if isinstance(model, SpiritLM) else model


def _add_pages(app: FastAPI) -> None:
    """Add what is read, not asked."""

    @app.get("/health", response_model=None)
    async def health(request: Request) -> Response:
        """Tell whether all models are loaded."""
        states = {n: m.state for n, m in server_of(request).models.items()}
        status = max(states.values(), key=_STATES.index)
        return JSONResponse(
            {"status": status, "models": states},
            200 if status == "ready" else BUSY,
            {"Retry-After": "1"} if status == "loading" else {},
        )

    @app.get("/metrics", response_model=None)
    async def metrics(request: Request) -> Response:
        """Return counts, as Prometheus reads them."""
        text = server_of(request).metrics.text()
        return Response(text, headers={"Content-Type": CONTENT_TYPE})

    @app.get("/v1/models")
    async def models(request: Request) -> dict[str, Any]:
        """List the models."""
        server = server_of(request)
        return {
            "object": "list",
            "data": [_listed(server, name) for name in server.models],
        }

    @app.get("/v1/models/{name}")
    async def model(request: Request, name: str) -> dict[str, Any]:
        """Tell of a model."""
        return _listed(server_of(request), name)

    @app.get("/", response_model=None)
    async def page(request: Request) -> Response:
        """Return the page."""
        if not (PAGE / "index.html").is_file():
            raise RequestError(404, "there is no page")
        return FileResponse(PAGE / "index.html", headers=_PAGE_HEADERS)

    if PAGE.is_dir():
        app.mount("/page", _PageFiles(directory=PAGE), name="page")


class _PageFiles(StaticFiles):
    """Files of the page, with what a browser may do with them."""

    def file_response(self, *args: Any, **options: Any) -> Response:
        response = super().file_response(*args, **options)
        response.headers.update(_PAGE_HEADERS)
        return response


def _listed(server: Server, name: str) -> dict[str, Any]:
    model = server.model(name)
    said = {}
    if model.state == "ready":
        said = {"voices": model.lm.speakers, "styles": model.lm.styles}
    return {
        "id": name,
        "object": "model",
        "created": server.started,
        "owned_by": "spiritlm",
        **said,
    }
