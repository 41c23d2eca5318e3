"""Who labels in a browser: names, links and roles, and the file that keeps them, `people.json` of a run directory."""

import contextlib
import hashlib
import pathlib
import secrets
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from aal.config.errors import UserError, of_system
from aal.config.people import PersonName
from aal.config.settings import Settings
from aal.storage.atomic import write_whole
from aal.storage.run_directory import writing
from aal.web.address import LOOPBACK, address

NAME = "people.json"
SECRET = 0o600  # who reads the file can label in the name of everybody
TOKEN_BYTES = 18

PersonRole = Literal["annotator", "supervisor"]


class Person(BaseModel):
    """Somebody who labels.

    Attributes:
        annotator: their number in the record.
        name: of the person.
        role: supervisors may also watch the run, invite others, correct, pause and stop.
        token: the secret of their link; None for those who may no longer take part.
    """

    model_config = ConfigDict(frozen=True)

    annotator: Annotated[int, Field(ge=0)]
    name: PersonName
    role: PersonRole
    token: str | None


class People:
    """The people of a run; their numbers follow those of the simulated annotators, and are never given again.

    Args:
        run: the run directory.
        first: number of the first person.

    Raises:
        UserError: the file is damaged, or may not be read.
        RunFailed: the disk fails.
    """

    def __init__(self, run: pathlib.Path, first: int) -> None:
        self._path, self._first = run / NAME, first
        try:
            self._listed = _read(self._path)
        except ValidationError:
            raise UserError(f"{self._path}: is damaged; remove it, and everybody gets a new link") from None
        except OSError as error:
            raise of_system(error, f"{self._path}: cannot be read: {error.strerror or error}") from None
        self._by_digest = self._digests()

    def __iter__(self) -> Iterator[Person]:
        return iter(self._listed)

    def with_token(self, token: str) -> Person | None:
        """Returns whose token it is; the time that takes says nothing about the tokens there are."""
        return self._by_digest.get(_digest(token))

    def named(self, name: str) -> Person | None:
        """Returns the person of a name who may take part."""
        return next((person for person in self if person.name == name and person.token), None)

    def invite(self, names: Sequence[str], role: PersonRole) -> list[Person]:
        """Lets people take part, those who may already as before; returns them when they are on disk."""
        new = [name for name in names if self.named(name) is None]
        numbers = range(self._first + len(self._listed), self._first + len(self._listed) + len(new))
        made = [
            Person(annotator=number, name=name, role=role, token=secrets.token_urlsafe(TOKEN_BYTES))
            for number, name in zip(numbers, new, strict=True)
        ]
        self._write([*self._listed, *made])
        return [person for person in self if person.token and person.name in names]

    def shut_out(self, name: str) -> None:
        """Makes a person's link worthless; what they answered stays."""
        kept = [one.model_copy(update={"token": None}) if one.name == name else one for one in self]
        self._write(kept)

    def _write(self, people: list[Person]) -> None:
        if people != self._listed or not self._path.exists():
            with writing(self._path.parent):
                write_whole(self._path, TypeAdapter(list[Person]).dump_json(people, indent=1), SECRET)
        self._listed, self._by_digest = people, {}
        self._by_digest = self._digests()

    def _digests(self) -> dict[bytes, Person]:
        return {_digest(person.token): person for person in self._listed if person.token}


def _read(path: pathlib.Path) -> list[Person]:
    with contextlib.suppress(FileNotFoundError):
        return TypeAdapter(list[Person]).validate_json(path.read_bytes())
    return []


def names_of(run: pathlib.Path) -> tuple[dict[int, str], str | None]:
    """Returns the names of people by their numbers, and why they are missing: who else sees a run may not read them."""
    path = run / NAME
    try:
        return {person.annotator: person.name for person in _read(path)}, None
    except ValidationError:
        return {}, f"{path}: is damaged"
    except OSError as error:
        return {}, f"{path}: cannot be read: {error.strerror or error}"


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()


def invitations(settings: Settings, run: pathlib.Path) -> list[str]:
    """Invites the people whom the settings name; returns lines with their links.

    Raises:
        UserError: their file is damaged, or cannot be written.
    """
    if not settings.people.label:
        return []
    people = People(run, settings.annotators.number)
    people.invite(settings.people.supervisors, "supervisor")
    people.invite(settings.people.annotators, "annotator")
    where = address(settings.people)
    lines = [f"label as {one.name}: {link(where, one)}" for one in people if one.token]
    if not settings.people.host.startswith(LOOPBACK) and where.startswith("http:"):
        lines.append("warning: without TLS, who is in the same network can read these links (docs/security.md)")
    return lines


def link(where: str, person: Person) -> str:
    """Returns a person's invitation; what follows # is sent to no server and stands in no log."""
    return f"{where}/join#{person.token}"
