"""A page without a network: its hub is real, its visitors call it in the process of the test."""

import asyncio
import contextlib
import dataclasses
import pathlib
import socket
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import httpx2
import numpy as np
import uvicorn
from PIL import Image

from aal.config.errors import Stopped
from aal.context import Context
from aal.coordination.clock import WallClock
from aal.coordination.hub import Hub
from aal.storage.resume_state import resume_state_of
from aal.storage.run_recorder import RunRecorder
from aal.web.people import People, invitations
from aal.web.server import Site
from tests.builders import make_hub, make_settings, read_only

ADDRESS = "http://127.0.0.1:8765"
CLASSES = ("cat", "dog", "<img src=x onerror=alert(1)>")
PEOPLE = {"supervisors": ["eve"], "annotators": ["ada", "bob"]}
SIZE = 70  # images, of which those from 10 on are asked for


@dataclasses.dataclass
class Place:
    """A page, its hub, and who may use it."""

    site: Site
    hub: Hub
    people: People
    run: pathlib.Path
    clients: list[httpx2.AsyncClient]

    def visitor(self, name: str | None, **headers: str) -> httpx2.AsyncClient:
        """Returns a program of somebody's, or of nobody's."""
        person = self.people.named(name) if name else None
        given = {"authorization": f"Bearer {person.token}"} if person else {}
        transport = httpx2.ASGITransport(app=self.site.app)
        client = httpx2.AsyncClient(transport=transport, base_url=ADDRESS, headers={**given, **headers})
        self.clients.append(client)
        return client


@contextlib.asynccontextmanager
async def place(run: pathlib.Path, classes: Sequence[str] = CLASSES, **changes: Any) -> AsyncIterator[Place]:
    """A page on a hub that offers ids at random, for as long as a test needs it; a second one goes on with the run."""
    tree = {"people": PEOPLE, "max_staleness": "auto", "data_dir": str(run / "photos"), **changes}
    settings = make_settings(**tree)
    clock = WallClock(asyncio.get_running_loop().time())
    is_new = not run.exists()
    run.mkdir(exist_ok=True)
    recorder, state = RunRecorder(run / "run.db"), None
    if not is_new:
        with read_only(run) as db:
            state = resume_state_of(db)
    hub, _ = make_hub(settings, SIZE - 10, recorder, clock, state)  # type: ignore[arg-type]
    np.save(run / "images.npy", np.arange(SIZE * 8 * 8 * 3, dtype=np.uint8).reshape(SIZE, 8, 8, 3))
    invitations(settings, run)

    def beat() -> None:
        hub.computing()  # raises Stopped once the run is over

    context = Context("web", 0, run, settings, hub, clock, beat)
    site = Site(context, classes, run / "images.npy", paths_in(run / "photos"))
    made = Place(site, hub, People(run, settings.annotators.number), run, [])
    serving = asyncio.create_task(site.client.run())
    try:
        yield made
    finally:
        for client in made.clients:
            await client.aclose()
        hub.close("finished")
        with contextlib.suppress(Stopped):
            await serving


def paths_in(folder: pathlib.Path) -> list[str | None]:
    """Makes files for the first images, of several kinds; the others have none."""
    folder.mkdir(exist_ok=True)
    picture = Image.fromarray(np.random.RandomState(0).randint(0, 255, (90, 120, 3), np.uint8))
    names = ["photo.jpg", "a b <b>.png", "scan.tif", "gone.png", "page.png"]
    for name in names[:3]:
        picture.save(folder / name)
    (folder / "page.png").write_text("<script>alert(1)</script>")
    return [*names, *[None] * (SIZE - len(names))]


@contextlib.contextmanager
def served(run: pathlib.Path, classes: Sequence[str] = CLASSES, **changes: Any) -> Iterator[tuple[str, Place]]:
    """The same page at a port of this machine, for a browser; its address is that of its links too."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started, ended, found = threading.Event(), asyncio.Event(), list[tuple[asyncio.AbstractEventLoop, Place]]()

    async def serve() -> None:
        async with place(run, classes, people={**PEOPLE, "port": port}, **changes) as page:
            server = uvicorn.Server(uvicorn.Config(page.site.app, port=port, log_level="error", lifespan="off"))
            serving = asyncio.create_task(server.serve())
            while not server.started:
                await asyncio.sleep(0.01)
            found.append((asyncio.get_running_loop(), page))
            started.set()
            await ended.wait()
            server.should_exit = server.force_exit = True
            await serving

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert started.wait(60), "the page does not start"
    loop, page = found[0]
    try:
        yield f"http://127.0.0.1:{port}", page
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(60)


async def draw(client: httpx2.AsyncClient, count: int = 1) -> list[int]:
    """Draws queries."""
    answer = await client.post("/api/draw", json={"count": count})
    assert answer.status_code == 200, answer.text
    ids: list[int] = answer.json()["ids"]
    return ids
