"""Who may: everything that comes in passes here, before any page or call sees it."""

import dataclasses
import math
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request, cookie_parser
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aal.web.people import People, Person

HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
LARGEST_BODY = 64 * 1024
COOKIE_S = 90 * 24 * 3600


@dataclasses.dataclass
class Bucket:
    """A token bucket: `rate` requests a second, and `burst` at once.

    Attributes:
        rate: at which it fills.
        burst: what it holds.
    """

    rate: float
    burst: float
    left: float = math.nan
    filled_at: float = 0.0

    def take(self, now: float) -> float:
        """Takes one out; returns 0, or the seconds after which there is one."""
        left = self.burst if math.isnan(self.left) else min(self.burst, self.left + self.rate * (now - self.filled_at))
        self.left, self.filled_at = left, now
        if left < 1:
            return (1 - left) / self.rate
        self.left -= 1
        return 0.0


class Access:
    """ASGI middleware: refuses other sites, too many requests, and whoever has no link; sets headers on all answers.

    A page is known by a cookie that only this site sets and sends, a program by `Authorization: Bearer TOKEN`.

    Args:
        app: that is guarded; it finds the person in `scope["person"]`.
        people: who may.
        address: what people open; requests of pages must come from there, or from the host that they name.
        cookie: its name.
        rate: requests a second of one person, in the mean.
        burst: requests of one person at once.
        clock: seconds.
    """

    WRONG_RATE, WRONG_BURST = 0.5, 20  # guesses of tokens, of all callers together; nobody guesses one of 144 bits

    def __init__(
        self,
        app: ASGIApp,
        people: People,
        address: str,
        cookie: str,
        rate: float = 50.0,
        burst: float = 200.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app, self._people, self._address, self._cookie = app, people, address, cookie
        self._rate, self._burst, self._clock = rate, burst, clock
        self._buckets: dict[int, Bucket] = {}
        self._wrong = Bucket(self.WRONG_RATE, self.WRONG_BURST)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a request, or refuses it."""
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        headers = Headers(scope=scope)
        refused = self._from_elsewhere(scope, headers) or self._malformed(scope, headers)
        if refused is None and is_guarded(scope["path"]):
            refused = self._let_in(scope, headers)
        await (refused or self._app)(scope, receive, send_with_headers)

    def _from_elsewhere(self, scope: Scope, headers: Headers) -> JSONResponse | None:
        """Refuses what another site's page asks for; following a link to a page is no such thing."""
        is_link = scope["method"] == "GET" and not is_guarded(scope["path"])
        site = headers.get("sec-fetch-site")
        if site not in (None, "same-origin", "none") and not is_link:
            return refusal(403, "asked by another site")
        origin = headers.get("origin")
        if origin is not None and not self._is_own(origin, headers.get("host", "")):
            return refusal(403, "asked by a page of another address")
        if scope["method"] == "POST" and not bearer(headers) and site is None and origin is None:
            return refusal(403, "a page must say where it is from; programs send Authorization: Bearer TOKEN")
        return None

    def _is_own(self, origin: str, host: str) -> bool:
        """Whether a page is of this site: of the address that people are given, or of the host that they asked for."""
        return origin == self._address or urlsplit(origin).netloc == host

    def _malformed(self, scope: Scope, headers: Headers) -> JSONResponse | None:
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return refusal(405, "GET and POST only")
        if scope["method"] == "POST":
            if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
                return refusal(415, "send JSON, with Content-Type: application/json")
            length = headers.get("content-length", "0")
            if not length.isdecimal() or int(length) > LARGEST_BODY:
                return refusal(413, "too long")
        return None

    def _let_in(self, scope: Scope, headers: Headers) -> JSONResponse | None:
        """Finds out who asks, and refuses those without a link and those who ask too often."""
        now = self._clock()
        token = bearer(headers) or cookie_parser(headers.get("cookie", "")).get(self._cookie, "")
        person = self._people.with_token(token)
        if person is None:
            wait_s = self._wrong.take(now) if token else 0.0
            return too_many(wait_s) if wait_s else refusal(401, "open the link of your invitation")
        bucket = self._buckets.setdefault(person.annotator, Bucket(self._rate, self._burst))
        if wait_s := bucket.take(now):
            return too_many(wait_s)
        scope["person"] = person
        return None

    def join(self, token: str, is_secure: bool) -> JSONResponse:
        """Lets the browser in that sends a token, by a cookie that scripts cannot read and other sites cannot send."""
        if self._people.with_token(token) is None:
            if wait_s := self._wrong.take(self._clock()):
                return too_many(wait_s)
            return refusal(401, "this link is not valid (any more); ask whoever sent it for another")
        answer = JSONResponse({})
        answer.set_cookie(
            self._cookie, token, max_age=COOKIE_S, path="/", secure=is_secure, httponly=True, samesite="strict"
        )
        return answer


def is_guarded(path: str) -> bool:
    """Whether a path is for people with a link only; pages themselves show nothing of a run."""
    return path.startswith(("/api/", "/image/")) and path != "/api/join"


def bearer(headers: Headers) -> str:
    """Returns the token that a program sends; empty where there is none."""
    kind, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


def person_of(request: Request) -> Person:
    """Returns who asks."""
    person: Person = request.scope["person"]
    return person


def refusal(status: int, problem: str) -> JSONResponse:
    """Returns the answer to what is not done."""
    return JSONResponse({"problem": problem}, status)


def too_many(wait_s: float) -> JSONResponse:
    """Returns the answer to who asks too often."""
    answer = refusal(429, "too many requests")
    answer.headers["retry-after"] = str(math.ceil(wait_s))
    return answer
