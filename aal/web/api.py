"""The HTTP API by which people, and programs in their name, label (docs/labelling.md)."""

import asyncio
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from aal.config.errors import Stopped
from aal.coordination.answers import CANNOT_TELL
from aal.storage.live_figures import examples_of
from aal.web.access import LARGEST_BODY, Access, person_of, refusal
from aal.web.desk import Desk
from aal.web.figures import Figures
from aal.web.pictures import Pictures

EXAMPLES = 60  # of a class, on its page

B = TypeVar("B", bound=BaseModel)
A = TypeVar("A", bound="Act")
Example = Annotated[int, Field(ge=0)]


class Message(BaseModel):
    """What comes in: exactly what is declared."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Token(Message):
    """The secret of an invitation."""

    token: Annotated[str, Field(max_length=200)]


class Wish(Message):
    """A wish for queries."""

    count: Annotated[int, Field(ge=1, le=50)] = 1
    wait_s: Annotated[float, Field(ge=0, le=25)] = 0.0


class Act(Message):
    """What is done with an id; `key` names it, so that it can be sent again; `draw` asks for so many others."""

    id: Example
    key: Annotated[str, Field(min_length=1, max_length=64)] = "-"
    draw: Annotated[int, Field(ge=0, le=50)] = 0


class Answer(Act):
    """An answer: a place in the classes."""

    label: Annotated[int, Field(ge=0)]


class Ids(Message):
    """Ids on lease."""

    ids: Annotated[list[Example], Field(max_length=100)]


class Refused(Exception):  # noqa: N818 - becomes an answer
    """What is not done, and why.

    Args:
        status: of HTTP.
        problem: in a line.
    """

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(problem)
        self.status = status


async def read(request: Request, kind: type[B]) -> B:
    """Returns the message that a request holds.

    Raises:
        Refused: it is too long, or something else.
    """
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > LARGEST_BODY:
            raise Refused(413, "too long")
    try:
        return kind.model_validate_json(bytes(content))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise Refused(422, f"{where}: {first['msg']}" if where else str(first["msg"])) from None


async def refused(request: Request, error: Exception) -> Response:
    """Answers what raises `Refused`."""
    assert isinstance(error, Refused)
    return refusal(error.status, str(error))


async def try_again(request: Request, error: Exception) -> Response:
    """Answers while the run ends or its hub starts anew: what was sent is not done, and can be sent again."""
    answer = refusal(503, "the run has ended, or starts again")
    answer.headers["retry-after"] = "1"
    return answer


class Api:
    """The calls of everybody who labels.

    Args:
        desk: of the queries.
        figures: of the run.
        pictures: the images.
        classes: their names.
        images_ahead: that a page has fetched.
        lease_s: how long a lease lasts.
        access: who may.
        is_secure: whether cookies go over TLS only.
    """

    def __init__(
        self,
        desk: Desk,
        figures: Figures,
        pictures: Pictures,
        classes: list[str],
        images_ahead: int,
        lease_s: float,
        is_secure: bool,
    ) -> None:
        self._desk, self._figures, self._pictures = desk, figures, pictures
        self._classes, self._images_ahead, self._lease_s = classes, images_ahead, lease_s
        self._is_secure = is_secure
        self.access: Access | None = None
        self.routes = [
            Route("/api/join", self.join, methods=["POST"]),
            Route("/api/session", self.session),
            Route("/api/draw", self.draw, methods=["POST"]),
            Route("/api/answer", self.answer, methods=["POST"]),
            Route("/api/cannot_tell", self.cannot_tell, methods=["POST"]),
            Route("/api/skip", self.skip, methods=["POST"]),
            Route("/api/undo", self.undo, methods=["POST"]),
            Route("/api/renew", self.renew, methods=["POST"]),
            Route("/api/give_back", self.give_back, methods=["POST"]),
            Route("/api/progress", self.progress),
            Route("/api/examples/{label:int}", self.examples),
            Route("/image/{id:int}", self.image),
        ]

    async def join(self, request: Request) -> Response:
        """Lets a browser in by the token of an invitation."""
        assert self.access is not None
        return self.access.join((await read(request, Token)).token, self._is_secure)

    async def session(self, request: Request) -> Response:
        """Who asks, and what there is to answer."""
        person = person_of(request)
        return JSONResponse(
            {
                "name": person.name,
                "role": person.role,
                "classes": self._classes,
                "images_ahead": self._images_ahead,
                "lease_s": self._lease_s,
                "progress": await self._progress(request),
            }
        )

    async def draw(self, request: Request) -> Response:
        """Leases queries."""
        wish = await read(request, Wish)
        return JSONResponse({"ids": await self._drawn(request, wish.count, wish.wait_s), **await self._about(request)})

    async def answer(self, request: Request) -> Response:
        """Takes an answer in."""
        given = self._checked(await read(request, Answer))
        if given.label >= len(self._classes):
            raise Refused(422, f"label: from 0 to {len(self._classes) - 1}")
        return await self._answered(request, given, given.label)

    async def cannot_tell(self, request: Request) -> Response:
        """Takes in that somebody cannot tell what an image is."""
        return await self._answered(request, self._checked(await read(request, Act)), CANNOT_TELL)

    async def skip(self, request: Request) -> Response:
        """Leaves an image to others."""
        act = self._checked(await read(request, Act))
        self._desk.skip(person_of(request).annotator, [act.id])
        return await self._with_others(request, act)

    async def undo(self, request: Request) -> Response:
        """Takes the last answer back."""
        act = self._checked(await read(request, Act))
        ids = await self._desk.undo(person_of(request).annotator, act.id, act.key)
        return JSONResponse({"undone": ids, **await self._about(request)})

    async def renew(self, request: Request) -> Response:
        """Lets leases last longer."""
        ids = (await read(request, Ids)).ids
        held = self._desk.renew(person_of(request).annotator, ids)
        kept = [example for example, is_held in zip(ids, held, strict=True) if is_held]
        return JSONResponse({"ids": kept, **await self._about(request)})

    async def give_back(self, request: Request) -> Response:
        """Returns queries unanswered, as a page that is closed does."""
        self._desk.give_back(person_of(request).annotator, (await read(request, Ids)).ids)
        return JSONResponse({})

    async def progress(self, request: Request) -> Response:
        """How far the run is."""
        return JSONResponse(await self._about(request))

    async def examples(self, request: Request) -> Response:
        """The images of a class that were labelled last."""
        label = request.path_params["label"]
        if label >= len(self._classes):
            raise Refused(404, f"there are {len(self._classes)} classes")
        ids = await asyncio.to_thread(examples_of, self._figures.run, label, EXAMPLES)
        return JSONResponse({"name": self._classes[label], "ids": ids})

    async def image(self, request: Request) -> Response:
        """An image at its own resolution."""
        example = request.path_params["id"]
        if example >= len(self._pictures):
            raise Refused(404, "no such image")
        content, media_type = await asyncio.to_thread(self._pictures.read, example)
        headers = {"cache-control": "private, max-age=86400, immutable", "content-disposition": "inline"}
        return Response(content, media_type=media_type, headers=headers)

    def _checked(self, act: A) -> A:
        if act.id >= len(self._pictures):
            raise Refused(422, f"id: from 0 to {len(self._pictures) - 1}")
        return act

    async def _answered(self, request: Request, act: Act, label: int) -> Response:
        key = f"{act.id} {label} {act.key}"
        taken = await self._desk.answer(person_of(request).annotator, act.id, label, key)
        return await self._with_others(request, act, taken=taken)

    async def _with_others(self, request: Request, act: Act, **found: bool) -> Response:
        """Answers an act, with as many queries as it asks for."""
        ids = await self._drawn(request, act.draw, 0.0) if act.draw else []
        return JSONResponse({**found, "ids": ids, **await self._about(request)})

    async def _drawn(self, request: Request, count: int, wait_s: float) -> list[int]:
        """Draws for who asks; nothing once the run gives out no more."""
        annotator = person_of(request).annotator
        try:
            ids = await self._desk.draw(annotator, count, wait_s)
        except Stopped:
            return []
        if ids and wait_s and await request.is_disconnected():  # the page was closed meanwhile
            self._desk.give_back(annotator, ids)
        return ids

    async def _about(self, request: Request) -> dict[str, Any]:
        return {"progress": await self._progress(request)}

    async def _progress(self, request: Request) -> dict[str, Any]:
        annotator = person_of(request).annotator
        self._desk.note_seen(annotator)
        return {**await self._figures.progress(annotator), "over": self._desk.is_over}
