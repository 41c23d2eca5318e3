"""The calls of supervisors: watch a run, invite people, pause it and end it."""

import time
from typing import Annotated, Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from aal.config.people import PersonName
from aal.coordination.answers import CANNOT_TELL
from aal.web.access import person_of
from aal.web.api import Message, Refused, read
from aal.web.desk import Desk
from aal.web.figures import Figures
from aal.web.people import People, PersonRole, link


class Invitation(Message):
    """Who is to take part."""

    name: PersonName
    role: PersonRole = "annotator"


class Name(Message):
    """Who is to take part no more."""

    name: PersonName


class Pause(Message):
    """Whether nobody is given a query."""

    paused: bool


class Correction(Message):
    """The right label of an image; null: it is to have none."""

    id: Annotated[int, Field(ge=0)]
    label: Annotated[int, Field(ge=0)] | None


class Nothing(Message):
    """A message that says nothing."""


class Supervision:
    """See the module's text.

    Args:
        desk: of the queries.
        figures: of the run.
        people: who take part.
        address: what they open.
        classes: how many there are.
        images: how many there are.
    """

    def __init__(self, desk: Desk, figures: Figures, people: People, address: str, classes: int, images: int) -> None:
        self._classes, self._images = classes, images
        self._desk, self._figures, self._people, self._address = desk, figures, people, address
        self.routes = [
            Route("/api/monitor", self.monitor),
            Route("/api/invite", self.invite, methods=["POST"]),
            Route("/api/shut_out", self.shut_out, methods=["POST"]),
            Route("/api/correct", self.correct, methods=["POST"]),
            Route("/api/pause", self.pause, methods=["POST"]),
            Route("/api/stop", self.stop, methods=["POST"]),
        ]

    async def monitor(self, request: Request) -> Response:
        """Everything that is known of the run at this moment."""
        check_supervises(request)
        found = await self._figures.everything()
        return JSONResponse({**found, "people": [self._described(one.annotator) for one in self._people]})

    async def invite(self, request: Request) -> Response:
        """Lets somebody take part; who does already gets the same link again."""
        check_supervises(request)
        wanted = await read(request, Invitation)
        (person,) = self._people.invite([wanted.name], wanted.role)
        return JSONResponse({"name": person.name, "role": person.role, "link": link(self._address, person)})

    async def shut_out(self, request: Request) -> Response:
        """Makes a link worthless."""
        check_supervises(request)
        wanted = await read(request, Name)
        if wanted.name == person_of(request).name:
            raise Refused(409, "nobody can shut out himself or herself")
        self._people.shut_out(wanted.name)
        return JSONResponse({})

    async def correct(self, request: Request) -> Response:
        """Decides the label of an image, whatever others said; the next training uses it."""
        check_supervises(request)
        given = await read(request, Correction)
        if given.id >= self._images:
            raise Refused(422, f"id: from 0 to {self._images - 1}")
        if given.label is not None and given.label >= self._classes:
            raise Refused(422, f"label: from 0 to {self._classes - 1}")
        label = CANNOT_TELL if given.label is None else given.label
        return JSONResponse({"taken": await self._desk.correct(person_of(request).annotator, given.id, label)})

    async def pause(self, request: Request) -> Response:
        """Lets nobody have a query, or everybody again."""
        check_supervises(request)
        self._desk.hub.pause((await read(request, Pause)).paused)
        return JSONResponse({})

    async def stop(self, request: Request) -> Response:
        """Ends the run, as Ctrl-C does; it can be resumed."""
        check_supervises(request)
        await read(request, Nothing)
        self._desk.hub.interrupt()
        return JSONResponse({})

    def _described(self, annotator: int) -> dict[str, Any]:
        person = next(one for one in self._people if one.annotator == annotator)
        seen = self._desk.seen.get(annotator)
        return {
            "annotator": annotator,
            "name": person.name,
            "role": person.role,
            "link": link(self._address, person) if person.token else None,
            "seen_s": None if seen is None else time.monotonic() - seen,
        }


def check_supervises(request: Request) -> None:
    """Raises `Refused` for who only labels."""
    if person_of(request).role != "supervisor":
        raise Refused(403, "for supervisors only")
