"""The role of people in browsers: it serves their pages, and speaks for all of them to the hub."""

import asyncio
import contextlib
import logging
import pathlib
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from importlib import resources
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from aal.annotators.client import AnnotatorClient
from aal.config.errors import Stopped, innermost
from aal.config.people import PeopleSettings
from aal.context import Context
from aal.coordination.interfaces import PeopleHub
from aal.web.access import Access
from aal.web.address import address, listening
from aal.web.api import Api, Refused, refused, try_again
from aal.web.desk import Desk
from aal.web.figures import Figures
from aal.web.people import People
from aal.web.pictures import Pictures
from aal.web.supervision import Supervision

HUB_GONE = (EOFError, ConnectionError)  # which the hub's proxies raise
BEAT_S = 0.2
LAST_WORDS_S = 1.0  # in which pages can learn that the run is over
FILES = {  # what is served, under which names
    **{"/": "label.html", "/join": "join.html", "/monitor": "monitor.html", "/examples": "examples.html"},
    **{f"/{name}": name for name in ("style.css", "server.js", "label.js", "join.js", "monitor.js", "examples.js")},
    **{f"/{name}": name for name in ("queue.js", "outbox.js", "choices.js", "zoom.js", "curve.js", "icon.svg")},
}
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


class Site:
    """All that the page consists of.

    Args:
        context: of the role.
        classes: their names.
        pixels: file of the prepared images.
        paths: source files of the images, relative to `data_dir`.
        held_out: images that people label for testing.
    """

    def __init__(
        self,
        context: Context[PeopleHub],
        classes: Sequence[str],
        pixels: pathlib.Path,
        paths: Sequence[str | None] | None,
        held_out: int = 0,
    ) -> None:
        settings, where = context.settings, address(context.settings.people)
        self.client = AnnotatorClient(context.hub, context.clock, context.heartbeat)
        desk = Desk(context.run, self.client, context.hub, context.clock)
        people = People(context.run, settings.annotators.number)
        figures = Figures(context.run, settings, context.hub, held_out)
        pictures = Pictures(settings.data_dir, paths, pixels)
        ahead, lease_s = settings.people.images_ahead, settings.annotators.lease_s
        api = Api(desk, figures, pictures, list(classes), ahead, lease_s, where.startswith("https:"))
        supervision = Supervision(desk, figures, people, where, len(classes), len(pictures))
        handlers: dict[Any, Any] = {Refused: refused, **dict.fromkeys((Stopped, *HUB_GONE), try_again)}
        inner = Starlette(routes=[*_pages(), *api.routes, *supervision.routes], exception_handlers=handlers)
        api.access = self.app = Access(inner, people, where, f"aal-{settings.people.port}")


def build(
    context: Context[PeopleHub],
    classes: Sequence[str],
    pixels: pathlib.Path,
    paths: Sequence[str | None] | None,
    held_out: int = 0,
) -> Site:
    """Builds the page; see `Site`."""
    return Site(context, classes, pixels, paths, held_out)


async def serve(site: Site, context: Context[PeopleHub]) -> None:
    """The role of the page: it answers until the run is over."""
    people = context.settings.people
    server = _Server(_config(site.app, people))
    logging.getLogger("aal").info("the page is at %s", address(people))
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(server.serve([_socket(people)]))
            group.create_task(site.client.run())
            with contextlib.suppress(Stopped):
                while True:
                    context.heartbeat()
                    await context.clock.sleep(BEAT_S)
            await asyncio.sleep(LAST_WORDS_S)
            server.should_exit = True
    except BaseExceptionGroup as failures:
        raise innermost(failures) from None


class _Server(uvicorn.Server):
    """A server without handlers of signals: the engine ends this process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _socket(people: PeopleSettings) -> socket.socket:
    made = listening(people)
    made.setblocking(False)
    return made


def _config(app: Access, people: PeopleSettings) -> uvicorn.Config:
    logger = logging.getLogger("uvicorn")
    logger.handlers, logger.propagate = logging.getLogger("aal").handlers, False
    return uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=2000,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=1,
        ssl_certfile=people.tls_certificate,
        ssl_keyfile=people.tls_key,
    )


def _pages() -> list[Route]:
    folder = resources.files("aal.web") / "static"
    made = [Route("/favicon.ico", lambda request: RedirectResponse("/icon.svg"))]
    for path, name in FILES.items():
        kind = TYPES[pathlib.PurePath(name).suffix]
        made.append(Route(path, _constant((folder / name).read_bytes(), kind)))
    return made


def _constant(content: bytes, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    async def give(request: Request) -> Response:
        return Response(content, media_type=media_type, headers={"cache-control": "no-cache"})

    return give
