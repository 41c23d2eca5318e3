"""What people do over HTTP: draw, answer, renew, give back; and what they are shown."""

import asyncio
import io
import pathlib
from typing import Any

import pytest
from PIL import Image

from tests.builders import query, wait_for
from tests.web_site import CLASSES, SIZE, draw, place

pytestmark = pytest.mark.unit


def test_a_person_draws_answers_and_sees_it_counted(tmp_path: pathlib.Path) -> None:
    async def label() -> None:
        async with place(tmp_path / "run") as page:
            ada = page.visitor("ada")
            session = (await ada.get("/api/session")).json()
            assert session["name"] == "ada" and session["role"] == "annotator" and session["classes"] == [*CLASSES]
            ids = await draw(ada, 3)
            assert len(set(ids)) == 3 and all(10 <= example < SIZE for example in ids)
            given = {"id": ids[0], "label": 2, "key": "k", "draw": 1}
            answer = (await ada.post("/api/answer", json=given)).json()
            assert answer["taken"] and len(answer["ids"]) == 1 and answer["ids"][0] not in ids
            number = next(one.annotator for one in page.people if one.name == "ada")
            assert query(page.run, "SELECT item, annotator, label FROM answers") == [(ids[0], number, 2)]
            await asyncio.sleep(1.6)  # as old as the figures on a page may be
            await ada.get("/api/progress")
            await asyncio.sleep(0.3)
            progress = (await ada.get("/api/progress")).json()["progress"]
            assert progress["labels"] == 1 and progress["mine"] == 1 and not progress["over"]

    asyncio.run(label())


def test_an_answer_that_is_sent_again_counts_once(tmp_path: pathlib.Path) -> None:
    async def label() -> None:
        async with place(tmp_path / "run") as page:
            ada, bob = page.visitor("ada"), page.visitor("bob")
            (example,) = await draw(ada)
            given = {"id": example, "label": 1, "key": "once"}
            answers = await asyncio.gather(*(ada.post("/api/answer", json=given) for _ in range(3)))
            assert all(answer.json()["taken"] for answer in answers)
            assert not (await bob.post("/api/answer", json=given)).json()["taken"], "who never had it"
            assert not (await ada.post("/api/answer", json={**given, "label": 0})).json()["taken"], "another answer"
            assert query(page.run, "SELECT item, label FROM answers") == [(example, 1)]
        async with place(tmp_path / "run") as again:  # a new process of the page knows it from the record
            ada = again.visitor("ada")
            assert (await ada.post("/api/answer", json=given)).json()["taken"]
            assert query(again.run, "SELECT count(*) FROM answers") == [(1,)]

    asyncio.run(label())


def test_second_thoughts_skips_and_what_nobody_can_tell(tmp_path: pathlib.Path) -> None:
    async def label() -> None:
        async with place(tmp_path / "run", annotators={"cannot_tell": 2}) as page:
            ada, bob, eve = (page.visitor(name) for name in ("ada", "bob", "eve"))
            first, second, third = await draw(ada, 3)
            await ada.post("/api/answer", json={"id": first, "label": 1, "key": "1"})
            undo = {"id": first, "key": "2"}
            for _ in range(2):  # the first reply was lost
                assert (await ada.post("/api/undo", json=undo)).json()["undone"] == [first]
            assert (await ada.post("/api/undo", json={**undo, "key": "3"})).json()["undone"] == [], "there is no more"
            assert (await ada.post("/api/answer", json={"id": first, "label": 2, "key": "4"})).json()["taken"]
            standing = "SELECT item, label, kind FROM standing_answers"
            assert query(page.run, standing) == [(first, 2, "label")]
            corrected = await eve.post("/api/correct", json={"id": first, "label": 0})
            assert corrected.json()["taken"] and query(page.run, "SELECT label FROM labels") == [(0,)]
            assert (await ada.post("/api/correct", json={"id": first, "label": 1})).status_code == 403
            for wrong in (SIZE, 2**63 - 1, 10**20):
                refused = await eve.post("/api/correct", json={"id": wrong, "label": 1})
                assert refused.status_code == 422 and "from 0 to" in refused.text

            await ada.post("/api/skip", json={"id": second})
            others = await draw(ada, 5)
            assert len(others) >= 4 and second not in others and third not in others
            assert (await ada.post("/api/cannot_tell", json={"id": third, "draw": 1})).json()["taken"]
            drawn = await draw(bob, 2)
            assert sorted(drawn) == sorted([second, third]), "what one skips or cannot tell is for others"
            assert (await bob.post("/api/cannot_tell", json={"id": third})).json()["taken"]
            assert query(page.run, "SELECT item FROM retired") == [(third,)]

    asyncio.run(label())


def test_who_is_alone_has_what_was_skipped_again_at_the_end(tmp_path: pathlib.Path) -> None:
    async def label() -> None:
        async with place(tmp_path / "run") as page:
            ada = page.visitor("ada")
            skipped = await draw(ada)
            await ada.post("/api/skip", json={"id": skipped[0]})
            others: list[int] = []
            while len(others) < 29:
                others += await draw(ada, 29 - len(others))
            assert skipped[0] not in others
            assert await draw(ada) == skipped

    asyncio.run(label())


def test_who_waits_has_the_first_that_comes(tmp_path: pathlib.Path) -> None:
    async def label() -> None:
        async with place(tmp_path / "run") as page:
            ada, bob = page.visitor("ada"), page.visitor("bob")
            held = await draw(ada, 30)  # the whole budget
            assert len(held) == 30 and not await draw(bob)
            waiting = asyncio.create_task(bob.post("/api/draw", json={"wait_s": 20}))
            await asyncio.sleep(0.1)
            assert not (await bob.post("/api/draw", json={"wait_s": 0.05})).json()["ids"]
            await ada.post("/api/give_back", json={"ids": held[:2]})
            assert set((await waiting).json()["ids"]) <= set(held[:2])
            wait_for(lambda: len(query(page.run, "SELECT * FROM waits")) == 31)
            ((waited,),) = query(page.run, "SELECT max(got_at - asked_at) FROM waits")
            assert waited > 0.1

    asyncio.run(label())


def test_a_page_that_is_open_keeps_its_leases_and_others_cannot_give_them_back(tmp_path: pathlib.Path) -> None:
    async def label() -> None:
        async with place(tmp_path / "run", annotators={"lease_s": 1.0, "seconds_per_label": 0.1}) as page:
            ada, bob = page.visitor("ada"), page.visitor("bob")
            ids = await draw(ada, 30)
            await bob.post("/api/give_back", json={"ids": ids})
            for _ in range(4):
                await asyncio.sleep(0.4)
                assert (await ada.post("/api/renew", json={"ids": ids[:2]})).json()["ids"] == ids[:2]
            drawn = await draw(bob, 30)
            assert sorted(drawn) == sorted(ids[2:]), "what was not renewed is given to others"
            assert (await ada.post("/api/renew", json={"ids": ids})).json()["ids"] == ids[:2]

    asyncio.run(label())


@pytest.mark.parametrize(
    ("path", "message", "problem"),
    [
        ("/api/answer", {"id": 1, "label": 3}, "label: from 0 to 2"),
        ("/api/answer", {"id": SIZE, "label": 0}, f"id: from 0 to {SIZE - 1}"),
        ("/api/answer", {"id": -1, "label": 0}, "id: Input should be greater than or equal to 0"),
        ("/api/answer", {"id": "1", "label": 0}, "id: Input should be a valid integer"),
        ("/api/answer", {"id": 1}, "label: Field required"),
        ("/api/draw", {"count": 51}, "count: Input should be less than or equal to 50"),
        ("/api/draw", {"count": 1, "more": 1}, "more: Extra inputs are not permitted"),
        ("/api/renew", {"ids": [1] * 101}, "ids: List should have at most 100 items"),
        ("/api/give_back", [], "Input should be an object"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(
    tmp_path: pathlib.Path, path: str, message: Any, problem: str
) -> None:
    async def ask() -> None:
        async with place(tmp_path / "run") as page:
            answer = await page.visitor("ada").post(path, json=message)
            assert answer.status_code == 422 and problem in answer.json()["problem"], answer.text

    asyncio.run(ask())


def test_images_come_at_their_own_resolution_and_as_images_only(tmp_path: pathlib.Path) -> None:
    async def look() -> None:
        async with place(tmp_path / "run") as page:
            ada = page.visitor("ada")
            kinds = {0: ("image/jpeg", (120, 90)), 1: ("image/png", (120, 90)), 2: ("image/png", (120, 90))}
            prepared = {3: "the file is gone", 4: "it is no image", 5: "there is no file"}
            for example, (kind, size) in (kinds | dict.fromkeys(prepared, ("image/png", (8, 8)))).items():
                answer = await ada.get(f"/image/{example}")
                assert answer.headers["content-type"] == kind, prepared.get(example)
                assert answer.headers["x-content-type-options"] == "nosniff"
                assert Image.open(io.BytesIO(answer.content)).size == size, prepared.get(example)
            assert (await ada.get(f"/image/{SIZE}")).status_code == 404
            for path in ("/image/../people.json", "/image/..%2Fpeople.json", "/image/-1", "/people.json", "/image/"):
                assert (await ada.get(path)).status_code == 404, path

    asyncio.run(look())


def test_a_class_shows_what_was_labelled_last(tmp_path: pathlib.Path) -> None:
    async def look() -> None:
        async with place(tmp_path / "run") as page:
            ada = page.visitor("ada")
            ids = await draw(ada, 3)
            for example, label in zip(ids, (1, 0, 1), strict=True):
                await ada.post("/api/answer", json={"id": example, "label": label})
            shown = (await ada.get("/api/examples/1")).json()
            assert shown == {"name": "dog", "ids": [ids[2], ids[0]]}
            assert (await ada.get("/api/examples/0")).json()["ids"] == [ids[1], 6, 7, 8, 9], "the initial ones last"
            assert (await ada.get("/api/examples/3")).status_code == 404

    asyncio.run(look())


def test_a_supervisor_watches_invites_pauses_and_stops(tmp_path: pathlib.Path) -> None:
    async def supervise() -> None:
        async with place(tmp_path / "run") as page:
            ada, eve = page.visitor("ada"), page.visitor("eve")
            watched = (await eve.get("/api/monitor")).json()
            assert [one["name"] for one in watched["people"]] == ["eve", "ada", "bob"]
            made = (await eve.post("/api/invite", json={"name": "carl", "role": "annotator"})).json()
            again = (await eve.post("/api/invite", json={"name": "carl"})).json()
            assert made["link"] == again["link"] and made["link"].startswith("http://127.0.0.1:8765/join#")
            carl = page.visitor(None, authorization=f"Bearer {made['link'].partition('#')[2]}")
            assert (await carl.get("/api/session")).json()["name"] == "carl"
            await eve.post("/api/shut_out", json={"name": "carl"})
            assert (await carl.get("/api/session")).status_code == 401
            await eve.post("/api/pause", json={"paused": True})
            assert not await draw(ada) and page.hub.status().paused
            await eve.post("/api/pause", json={"paused": False})
            assert await draw(ada)
            await eve.post("/api/stop", json={})
            assert page.hub.status().interrupted

    asyncio.run(supervise())


def test_an_answer_for_a_run_that_ends_may_come_again(tmp_path: pathlib.Path) -> None:
    async def label() -> None:
        async with place(tmp_path / "run") as page:
            ada = page.visitor("ada")
            first, second = await draw(ada, 2)
            page.hub.stop()
            assert (await ada.post("/api/draw", json={"wait_s": 20})).json()["progress"]["over"]
            assert (await ada.post("/api/answer", json={"id": first, "label": 0})).json()["taken"], "it is paid for"
            while not page.site.client.closed:
                await asyncio.sleep(0.02)
            answer = await ada.post("/api/answer", json={"id": second, "label": 0})
            assert answer.status_code == 503 and answer.headers["retry-after"] == "1"

    asyncio.run(label())
