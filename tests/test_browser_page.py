"""The page in Chromium, on a hub without models: keys, search, second thoughts, touch, screen readers, names."""

import pathlib
from typing import Any

from aal.web.people import link
from tests.browsing import MARKS, Person
from tests.builders import query
from tests.web_site import CLASSES, Place, served

pytestmark = MARKS
MANY = ["ant", "Bee", "zebra", *(f"kind {number}" for number in range(3, 120))]
STANDING = "SELECT item, label, kind FROM standing_answers ORDER BY arrival"


def person(browser: Any, where: str, page: Place, name: str, **profile: Any) -> Person:
    found = page.people.named(name)
    assert found is not None
    return Person(browser, link(where, found), **profile)


def test_keys_undo_skip_and_cannot_tell(tmp_path: pathlib.Path, browser: Any) -> None:
    with served(tmp_path / "run") as (where, page):
        ada = person(browser, where, page, "ada")
        first, second = ada.press("1", "2")
        ada.sent()
        assert query(page.run, STANDING) == [(first, 0, "label"), (second, 1, "label")]
        ada.page.keyboard.press("Backspace")
        assert ada.shown() == second and "dog" in ada.page.inner_text("button[aria-pressed=true]")
        ada.press("1")
        ada.page.keyboard.press("ArrowLeft")
        ada.page.keyboard.press("ArrowLeft")
        assert ada.shown() == first, "one step back after another"
        (unsure,) = ada.press("?")
        assert unsure == first and ada.press("3") == [second]
        (skipped,) = ada.press("ArrowRight")
        assert ada.shown() != skipped
        ada.page.keyboard.press("ArrowLeft")
        assert ada.shown() == skipped, "a skip is undone too"
        ada.sent()
        assert query(page.run, STANDING) == [(first, None, "cannot tell"), (second, 2, "label")]
        for key in ("Control+1", "x", "4", "0"):
            ada.page.keyboard.press(key)
        assert ada.shown() == skipped, "keys that mean nothing do nothing"
        assert not ada.problems


def test_a_class_that_is_named_by_a_key_has_that_key(tmp_path: pathlib.Path, browser: Any) -> None:
    with served(tmp_path / "run", ["1", "0", "B", "none", "b", "ten"]) as (where, page):
        ada = person(browser, where, page, "ada")
        keys = [key.inner_text() for key in ada.page.query_selector_all("#choices kbd")]
        assert keys == ["1", "0", "b", "2", "3", "4"]
        ids = ada.press("0", "1", "b")
        ada.sent()
        assert query(page.run, STANDING) == [(item, label, "label") for item, label in zip(ids, (1, 0, 2), strict=True)]


def test_a_closed_page_gives_its_images_back_and_hostile_names_stay_text(tmp_path: pathlib.Path, browser: Any) -> None:
    with served(tmp_path / "run") as (where, page):
        ada = person(browser, where, page, "ada")
        assert CLASSES[2] in ada.page.inner_text("#choices") and not ada.page.query_selector("#choices img")
        ada.page.goto(f"{where}/examples#2")
        ada.until(lambda: ada.page.inner_text("#name") == CLASSES[2])
        assert not ada.page.query_selector("h1 img")
        ada.until(lambda: page.hub.status().waiting == 3)  # what the page had, and nobody has now
        eve = person(browser, where, page, "eve")
        monitor = eve.context.new_page()
        monitor.goto(f"{where}/monitor")
        eve.until(lambda: "ada" in monitor.inner_text("#people"))
        monitor.fill("#name", "carl")
        monitor.click("#invite button")
        eve.until(lambda: page.people.__class__(page.run, 10).named("carl") is not None)
        monitor.click("#pause")
        eve.until(lambda: page.hub.status().paused and "paused" in monitor.inner_text("#state"))
        ada.page.goto(f"{where}/monitor")
        ada.until(lambda: "for supervisors only" in ada.page.inner_text("#trouble"))
        assert not ada.page.is_visible("#invite") and not ada.page.is_visible("#stop")
        assert not ada.problems and not eve.problems


def test_of_many_classes_one_is_found_by_its_first_letters(tmp_path: pathlib.Path, browser: Any) -> None:
    with served(tmp_path / "run", MANY) as (where, page):
        ada = person(browser, where, page, "ada")
        assert len(ada.page.query_selector_all("#choices button")) == 9
        first = ada.shown()
        ada.page.keyboard.type("ze")
        assert ada.page.inner_text("#choices button") == "1 zebra"
        ada.page.keyboard.press("Enter")
        second = ada.shown()
        assert ada.page.inner_text("#choices button").endswith("zebra"), "what was used last comes first"
        ada.page.keyboard.type("b")
        ada.page.keyboard.press("1")
        ada.sent()
        assert query(page.run, STANDING) == [(first, 2, "label"), (second, 1, "label")]
        assert not ada.problems


def test_a_phone_and_a_screen_reader_have_all_that_keys_have(tmp_path: pathlib.Path, browser: Any) -> None:
    with served(tmp_path / "run") as (where, page):
        phone = {"viewport": {"width": 390, "height": 700}, "is_mobile": True, "has_touch": True}
        bob = person(browser, where, page, "bob", **phone)
        first = bob.shown()
        assert bob.page.evaluate("document.documentElement.scrollWidth") <= 390, "nothing is beside the screen"
        bob.page.tap("#choices button >> nth=1")
        bob.sent()
        assert query(page.run, STANDING) == [(first, 1, "label")]
        said = bob.page.inner_text("#said")
        assert said.startswith("Labelled dog. Image ") and bob.page.get_attribute("#said", "aria-live") == "polite"
        assert bob.page.get_by_role("button", name="dog").get_attribute("aria-keyshortcuts") == "2"
        assert bob.page.get_by_role("navigation", name="Classes").is_visible()
        assert bob.page.get_by_role("link", name="Examples of dog").get_attribute("href") == "/examples#1"
        assert bob.page.get_by_role("img").get_attribute("alt") == f"Image {bob.shown()}, to be labelled"
        for name in ("Undo", "Skip", "Cannot tell", "Zoom", "Fit"):
            assert bob.page.get_by_role("button", name=name).is_visible(), name
        bob.page.tap("#closer")
        assert "scale(1.5)" in bob.page.evaluate("document.querySelector('#stage img').style.transform")
        assert not bob.problems


def test_a_link_that_no_longer_works_says_so(tmp_path: pathlib.Path, browser: Any) -> None:
    with served(tmp_path / "run") as (where, _):
        page = browser.new_context().new_page()
        page.goto(f"{where}/join#wrong")
        page.wait_for_selector("text=You cannot be let in")
        assert page.url == f"{where}/join", "the secret is out of the address"
        page.goto(where)
        page.wait_for_selector("text=Open the link of your invitation")


def test_pages_have_a_language_a_title_and_a_text_for_everything(tmp_path: pathlib.Path, browser: Any) -> None:
    with served(tmp_path / "run") as (where, _):
        page = browser.new_context().new_page()
        for path in ("/", "/monitor", "/examples", "/join"):
            page.goto(f"{where}{path}")
            assert page.evaluate("document.documentElement.lang") == "en" and page.title(), path
            nameless = "img:not([alt]), input:not([aria-label]):not(label *), a:not([href])"
            assert not page.query_selector_all(nameless), path
