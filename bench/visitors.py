"""Scripted people: they draw, look at the image, answer and draw again over HTTP, as their pages do."""

import contextlib
import http.client
import json
import pathlib
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sklearn.datasets import load_digits

PEOPLE_FILE = "people.json"
RETRY_S = 0.2
TIMEOUT_S = 40.0


@dataclass
class Visit:
    """What a visitor did.

    Attributes:
        answered: (id, number of the annotator, label) of each answer that the page has acknowledged.
        waits_s: from an answer until the next image is there, each.
        answers_s: of each answer, until it is acknowledged.
        repeated: answers that were sent more than once.
    """

    answered: set[tuple[int, int, int]] = field(default_factory=set)
    waits_s: list[float] = field(default_factory=list)
    answers_s: list[float] = field(default_factory=list)
    repeated: int = 0


class Visitor(threading.Thread):
    """Somebody before a page, until the run is over or `stop` is set.

    Args:
        run: the run directory, which holds the links.
        port: of the page, at 127.0.0.1.
        name: of the person.
        truth: the right label of each id.
        seconds: that an answer takes, in the mean.
        stop: ends the visit.
        gives_up: the chance that this one goes away with an image on the screen, and comes back with other images.
    """

    def __init__(
        self,
        run: pathlib.Path,
        port: int,
        name: str,
        truth: Sequence[int],
        seconds: float,
        stop: threading.Event,
        gives_up: float = 0.0,
    ) -> None:
        super().__init__(name=f"visitor {name}", daemon=True)
        self._run, self._port, self._person, self._truth = run, port, name, truth
        self._seconds, self._stop_event, self._gives_up = seconds, stop, gives_up
        self._chance = random.Random(name)
        self._connection: http.client.HTTPConnection | None = None
        self._headers: dict[str, str] = {}
        self._number = -1
        self.visit = Visit()

    def run(self) -> None:
        """Labels until there is nothing more to label."""
        with contextlib.closing(self), contextlib.suppress(InterruptedError):
            self._find_link()
            ahead: list[int] = []
            while True:
                since = time.monotonic()
                ahead = ahead or self._drawn()
                example = ahead.pop(0)
                self._until_done("GET", f"/image/{example}")
                self.visit.waits_s.append(time.monotonic() - since)
                self._pause(self._chance.expovariate(1 / self._seconds))
                if self._chance.random() < self._gives_up:
                    ahead = []
                    continue
                ahead += self._answer(example, 2 - len(ahead))

    def close(self) -> None:
        """Closes the connection to the page, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _answer(self, example: int, count: int) -> list[int]:
        """Answers until that is acknowledged; returns new ids."""
        label, since = int(self._truth[example]), time.monotonic()
        message = {"id": example, "label": label, "key": str(len(self.visit.answers_s)), "draw": count}
        reply = self._until_done("POST", "/api/answer", message)
        self.visit.answers_s.append(time.monotonic() - since)
        if reply["taken"]:
            self.visit.answered.add((example, self._number, label))
        drawn: list[int] = reply["ids"]
        return drawn

    def _drawn(self) -> list[int]:
        while True:
            reply = self._until_done("POST", "/api/draw", {"count": 2, "wait_s": 5.0})
            if reply["ids"]:
                drawn: list[int] = reply["ids"]
                return drawn
            if reply["progress"]["over"]:
                raise InterruptedError

    def _find_link(self) -> None:
        def found() -> Mapping[str, Any] | None:
            with contextlib.suppress(OSError, ValueError):
                people = json.loads((self._run / PEOPLE_FILE).read_text(encoding="utf-8"))
                return next((one for one in people if one["name"] == self._person), None)
            return None

        person = self._until(found)
        self._number = person["annotator"]
        self._headers = {"Authorization": f"Bearer {person['token']}", "Content-Type": "application/json"}

    def _until_done(self, method: str, path: str, message: Mapping[str, Any] | None = None) -> Any:
        """Asks until the page has answered; whatever fails meanwhile is asked again."""
        tries = 0

        def asked() -> Any:
            nonlocal tries
            tries += 1
            return self._ask(method, path, message)

        reply = self._until(asked)
        self.visit.repeated += tries > 1 and method == "POST"
        return reply

    def _ask(self, method: str, path: str, message: Mapping[str, Any] | None) -> Any:
        try:
            self._connection = self._connection or http.client.HTTPConnection(
                "127.0.0.1", self._port, timeout=TIMEOUT_S
            )
            self._connection.request(method, path, None if message is None else json.dumps(message), self._headers)
            reply = self._connection.getresponse()
            content = reply.read()
        except (OSError, http.client.HTTPException):
            self.close()
            return None
        if reply.status != 200:
            return None
        return json.loads(content) if path.startswith("/api/") else content

    def _until(self, attempt: Callable[[], Any]) -> Any:
        while (found := attempt()) is None:
            self._pause(RETRY_S * self._chance.uniform(0.5, 1.5))
        return found

    def _pause(self, seconds: float) -> None:
        if self._stop_event.wait(seconds):
            raise InterruptedError


class Visitors:
    """Several people before the page of a run on digits, who know every label.

    Args:
        run: the run directory.
        number: of people.
        seconds: that an answer takes, in the mean.
        gives_up: the chance that an image is left unanswered, as by a browser that dies.
    """

    def __init__(self, run: pathlib.Path, number: int, seconds: float = 0.5, gives_up: float = 0.05) -> None:
        names, port = [f"person {place}" for place in range(number)], free_port()
        self._stop = threading.Event()
        truth = load_digits().target.tolist() if number else []
        self.all = [Visitor(run, port, name, truth, seconds, self._stop, gives_up) for name in names]
        self.words = [f"people.port={port}", f"people.annotators={json.dumps(names)}"] if names else []

    @contextlib.contextmanager
    def labelling(self) -> Iterator[None]:
        """They label meanwhile."""
        for visitor in self.all:
            visitor.start()
        try:
            yield
        finally:
            self._stop.set()
            for visitor in self.all:
                visitor.join()

    def acknowledged(self) -> set[tuple[int, int, int]]:
        """Returns (id, number of the annotator, label) of all answers that the page has acknowledged."""
        return set().union(*(visitor.visit.answered for visitor in self.all))


def free_port() -> int:
    """Returns a port that nobody listens to just now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
