"""Who may: links, roles, other sites, too many requests, and names that are markup."""

import asyncio
import json
import pathlib
import re
import stat
from collections.abc import AsyncIterator, Mapping

import pytest

from aal.config.errors import UserError
from aal.config.people import PeopleSettings
from aal.web.access import Access, Bucket
from aal.web.address import address, check_page, listening, when_open
from aal.web.people import People, invitations, link
from tests.builders import make_settings
from tests.web_site import ADDRESS, CLASSES, Place, draw, place

pytestmark = pytest.mark.unit
STATIC = pathlib.Path(__file__).resolve().parent.parent / "aal" / "web" / "static"
GUARDED = ["/api/session", "/api/progress", "/api/monitor", "/api/examples/0", "/image/0"]
CALLS = ["draw", "answer", "renew", "give_back", "invite", "shut_out", "pause", "stop"]


def test_nothing_of_a_run_is_shown_to_who_has_no_link(tmp_path: pathlib.Path) -> None:
    async def try_all() -> None:
        async with place(tmp_path / "run") as page:
            for client in (page.visitor(None), page.visitor(None, authorization="Bearer guessed")):
                for path in GUARDED:
                    assert (await client.get(path)).status_code == 401, path
                for call in CALLS:
                    answer = await client.post(f"/api/{call}", json={}, headers={"origin": ADDRESS})
                    assert answer.status_code == 401, call
            pages = {"/": "label.html", "/join": "join.html", "/monitor": "monitor.html", "/label.js": "label.js"}
            for path, name in pages.items():
                answer = await page.visitor(None).get(path)
                assert answer.content == (STATIC / name).read_bytes(), "the same for every run and everybody"

    asyncio.run(try_all())


def test_who_only_labels_supervises_nothing(tmp_path: pathlib.Path) -> None:
    async def try_all() -> None:
        async with place(tmp_path / "run") as page:
            ada = page.visitor("ada")
            assert (await ada.get("/api/monitor")).status_code == 403
            for call in ("invite", "shut_out", "pause", "stop"):
                assert (await ada.post(f"/api/{call}", json={})).status_code == 403, call
            assert not page.hub.status().interrupted

    asyncio.run(try_all())


def test_a_link_lets_a_browser_in_by_a_cookie_that_only_this_site_uses(tmp_path: pathlib.Path) -> None:
    async def join() -> None:
        async with place(tmp_path / "run") as page:
            browser = page.visitor(None, origin=ADDRESS)
            person = page.people.named("ada")
            assert person is not None
            joined = await browser.post("/api/join", json={"token": person.token})
            cookie = joined.headers["set-cookie"]
            assert all(part in cookie for part in ("HttpOnly", "SameSite=strict", "Path=/", "aal-8765=")), cookie
            assert "Secure" not in cookie, "it would never be sent over http"
            assert (await browser.get("/api/session")).json()["name"] == "ada"
            wrong = await page.visitor(None, origin=ADDRESS).post("/api/join", json={"token": "x"})
            assert wrong.status_code == 401 and "set-cookie" not in wrong.headers

    asyncio.run(join())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": ADDRESS}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site", "origin": "http://127.0.0.1:9999"}, 403),
        ({"sec-fetch-site": "cross-site", "origin": ADDRESS}, 403),
        ({}, 403),
    ],
)
def test_a_page_of_another_site_can_do_nothing(tmp_path: pathlib.Path, headers: Mapping[str, str], status: int) -> None:
    async def ask() -> None:
        async with place(tmp_path / "run") as page:
            browser = page.visitor(None)
            browser.cookies.set("aal-8765", token_of(page, "ada"))
            assert (await browser.post("/api/draw", json={}, headers=headers)).status_code == status
            looked = await browser.get("/image/0", headers=headers)
            assert looked.status_code == (200 if status == 200 or not headers else 403)

    asyncio.run(ask())


def test_forms_and_long_messages_are_refused(tmp_path: pathlib.Path) -> None:
    async def ask() -> None:
        async with place(tmp_path / "run") as page:
            ada = page.visitor("ada")
            for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
                answer = await ada.post("/api/draw", content=b"{}", headers={"content-type": kind})
                assert answer.status_code == 415, kind
            long = json.dumps({"ids": [1] * 40_000})
            as_json = {"content-type": "application/json"}
            assert (await ada.post("/api/renew", content=long, headers=as_json)).status_code == 413

            async def in_parts() -> AsyncIterator[bytes]:
                for start in range(0, len(long), 1000):
                    yield long[start : start + 1000].encode()

            assert (await ada.post("/api/renew", content=in_parts(), headers=as_json)).status_code == 413
            assert (await ada.request("DELETE", "/api/draw")).status_code == 405

    asyncio.run(ask())


def test_who_asks_too_often_has_to_wait_and_others_do_not(tmp_path: pathlib.Path) -> None:
    async def ask() -> None:
        async with place(tmp_path / "run") as page:
            app = page.site.app
            assert isinstance(app, Access)
            app._rate, app._burst = 0.01, 5
            ada, bob = page.visitor("ada"), page.visitor("bob")
            statuses = [(await ada.get("/image/0")).status_code for _ in range(8)]
            assert statuses[:5] == [200] * 5 and 429 in statuses
            refused = next(answer for answer in [await ada.get("/image/0") for _ in range(9)] if answer.is_error)
            assert int(refused.headers["retry-after"]) >= 1
            assert (await bob.get("/image/0")).status_code == 200
            guesses = [(await page.visitor(None, authorization=f"Bearer {n}").get("/api/session")) for n in range(25)]
            assert [one.status_code for one in guesses][:20] == [401] * 20 and guesses[-1].status_code == 429
            assert (await bob.get("/api/session")).status_code == 200, "guesses of others lock nobody out"

    asyncio.run(ask())


def test_a_bucket_fills_at_its_rate() -> None:
    bucket = Bucket(rate=2.0, burst=3.0)
    assert [bucket.take(0.0) for _ in range(3)] == [0.0] * 3
    assert bucket.take(0.0) == pytest.approx(0.5)
    assert bucket.take(0.5) == 0.0 and bucket.take(0.5) > 0
    assert [bucket.take(100.0) for _ in range(4)].count(0.0) == 3, "it holds no more than the burst"


def test_every_answer_forbids_what_a_page_of_ours_never_does(tmp_path: pathlib.Path) -> None:
    async def look() -> None:
        async with place(tmp_path / "run") as page:
            for path in ("/", "/nothing", "/api/session", "/image/0"):
                headers = (await page.visitor(None).get(path)).headers
                policy = headers["content-security-policy"]
                assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy
                assert "unsafe" not in policy and headers["referrer-policy"] == "no-referrer"

    asyncio.run(look())


def test_no_page_asks_another_host_or_makes_markup_of_text() -> None:
    files = sorted(STATIC.iterdir())
    assert len(files) > 10
    for path in files:
        text = path.read_text()
        hosts = set(re.findall(r"https?://[^\"'\s]+", text)) - {"http://www.w3.org/2000/svg"}
        assert not hosts, (path.name, hosts)
        for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
            assert way not in text, (path.name, way)
        if path.suffix == ".html":
            assert not re.search(r"\son\w+=|style=|<script>", text), path.name


def test_links_last_and_their_file_is_for_its_owner_alone(tmp_path: pathlib.Path) -> None:
    settings = make_settings(people={"supervisors": ["eve"], "annotators": ["ada"]})
    first = invitations(settings, tmp_path)
    assert first == invitations(settings, tmp_path) and len(first) == 2
    assert stat.S_IMODE((tmp_path / "people.json").stat().st_mode) == 0o600
    more = make_settings(people={"supervisors": ["eve", "carl"], "annotators": ["ada"]})
    assert invitations(more, tmp_path)[:2] == first
    people = People(tmp_path, settings.annotators.number)
    assert [one.annotator for one in people] == [10, 11, 12] and len({one.token for one in people}) == 3
    people.shut_out("ada")
    assert people.named("ada") is None
    (again,) = people.invite(["ada"], "annotator")
    assert again.annotator == 13, "a number is one person's for good"
    said: list[str] = []
    with listening(settings.people.model_copy(update={"port": 0})) as page:
        look = when_open(settings.people.model_copy(update={"port": page.getsockname()[1]}), first, said.append)
        look()
        assert not said, "nobody is sent to a page that is not there yet"
        page.listen()
        look()
        look()
    assert said == first
    (tmp_path / "people.json").write_text("[{")
    with pytest.raises(UserError, match="is damaged"):
        People(tmp_path, 10)


def test_addresses_are_those_that_people_open() -> None:
    assert address(PeopleSettings()) == "http://127.0.0.1:8765"
    assert address(PeopleSettings(host="::1", port=80)) == "http://[::1]:80"
    assert address(PeopleSettings(tls_certificate="c", tls_key="k")).startswith("https://")
    assert address(PeopleSettings(address="https://label.example.org")) == "https://label.example.org"
    assert "0.0.0.0" not in address(PeopleSettings(host="0.0.0.0"))


def test_a_port_that_is_taken_and_files_that_are_no_certificate_are_the_users_mistakes(tmp_path: pathlib.Path) -> None:
    people = PeopleSettings(supervisors=["eve"], port=18765)
    with listening(people) as taken:
        taken.listen()
        with pytest.raises(UserError, match=r"people.port: 127.0.0.1 port 18765: .*people.port=18766"):
            check_page(make_settings(people=people.model_dump()))
    with pytest.raises(UserError, match=r"people.host: no.such.host.invalid"):
        check_page(make_settings(people={"supervisors": ["eve"], "host": "no.such.host.invalid"}))
    with pytest.raises(UserError, match=r"people.host: 192.0.2.1: is no address of this machine"):
        check_page(make_settings(people={"supervisors": ["eve"], "host": "192.0.2.1"}))
    (tmp_path / "c.pem").write_text("x")
    files = {"tls_certificate": str(tmp_path / "c.pem"), "tls_key": str(tmp_path / "c.pem")}
    with pytest.raises(UserError, match=r"people.tls_certificate: .* are no certificate"):
        check_page(make_settings(people={"supervisors": ["eve"], "port": 18766, **files}))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"annotators": {"number": 0}}, "annotators.number: 0 label nothing"),
        ({"people": {"annotators": ["a", "b", "a"]}}, "people.annotators: a is named twice"),
        (
            {"classes": [True, False], "data_type": "folder"},
            "classes: must be text; put yes, no and the like in quotes",
        ),
        ({"people": {"supervisors": ["a"]}, "engine": "simulated"}, "people label in real time"),
        ({"people": {"supervisors": ["a"], "tls_key": "k"}}, "goes with people.tls_key"),
        ({"people": {"supervisors": ["<b>"]}}, "people.supervisors"),
        ({"people": {"supervisors": ["a"], "address": "https://a/b"}}, "people.address"),
    ],
)
def test_settings_of_people_are_checked(changes: dict[str, object], problem: str) -> None:
    with pytest.raises(UserError, match=re.escape(problem)):
        make_settings(**changes)


def test_hostile_names_stay_text(tmp_path: pathlib.Path) -> None:
    """As JSON, which no browser shows as a page; that the pages show them as text is tested in a browser."""

    async def look() -> None:
        async with place(tmp_path / "run") as page:
            answer = await page.visitor("ada").get("/api/session")
            assert answer.headers["content-type"] == "application/json" and answer.json()["classes"][2] == CLASSES[2]
            assert await draw(page.visitor("ada"))

    asyncio.run(look())


def token_of(page: Place, name: str) -> str:
    person = page.people.named(name)
    assert person is not None and person.token and link(ADDRESS, person).endswith(f"/join#{person.token}")
    return person.token
