"""People label in Chromium, by keys, while a real run trains models from what they say."""

import contextlib
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import pytest
from PIL import Image

from tests.browsing import MARKS, SLOW_S, Person
from tests.builders import query, wait_for

pytestmark = MARKS
ROOT = pathlib.Path(__file__).resolve().parent.parent
HOSTILE = "<img src=x onerror=document.title='run'>"
IMAGES, SIDE = 40, 160


class LabellingRun:
    """A run of three people on a folder of images, dark ones and bright ones.

    Args:
        folder: for images and the run.
        images: how many there are.
        *words: of the command line, after those that all runs have.
    """

    def __init__(self, folder: pathlib.Path, images: int = IMAGES, *words: str) -> None:
        photos, self.run = folder / "photos", folder / "run"
        photos.mkdir()
        random = np.random.RandomState(0)
        for number in range(images):
            pixels = random.randint(0, 100, (SIDE, SIDE, 3)) + 155 * (number % 2)
            Image.fromarray(pixels.astype(np.uint8)).save(photos / f"<b>{number:03d}.png")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [
            *(
                sys.executable,
                "main.py",
                "--config",
                "label.yaml",
                f"data_dir={photos}",
                f'classes=["dark", "{HOSTILE}", bright]',
            ),
            *(f"people.port={self.port}", "people.annotators=[ada,bob]", "training.epochs=2", "image_size=16"),
            *("training.validate_after=0", "server_train_threshold=10", "query_batch=10", "models=cnn"),
            *("restart_limit=100", "--out", str(self.run), *words),
        ]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.links: dict[str, str] = {}

    def wait_for_links(self) -> None:
        assert self.process.stdout is not None
        while len(self.links) < 3:
            line = self.process.stdout.readline()
            assert line, self.process.communicate()[1]
            if found := re.match(r"label as (\w+): (http://\S+)", line):
                self.links[found[1]] = found[2]
        wait_for(lambda: "the page is at" in self.log, SLOW_S)

    @property
    def log(self) -> str:
        path = self.run / "log.txt"
        return path.read_text() if path.exists() else ""

    def answers(self) -> int:
        ((number, different),) = query(self.run, "SELECT count(*), count(DISTINCT item) FROM labels")
        assert number == different, "an image was counted twice"
        return int(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.communicate(timeout=60)
        self.process.kill()

    def kill_page(self) -> None:
        started = re.findall(r" web (\d+) INFO started", self.log)
        os.kill(int(started[-1]), signal.SIGKILL)


@pytest.fixture(scope="module")
def labelling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabellingRun]:
    with LabellingRun(tmp_path_factory.mktemp("labelling")) as run:
        run.wait_for_links()
        yield run


def test_three_people_label_by_keys_while_models_learn_and_nothing_is_lost(
    labelling: LabellingRun, browser: Any
) -> None:
    people = [Person(browser, labelling.links[name]) for name in ("supervisor", "ada", "bob")]
    first, second, third = people
    pressed: list[int] = []
    for key in ("1", "3", "1", "2"):
        for person in people:
            pressed += person.press(key)
    for person in people:
        person.sent()
    assert labelling.answers() == len(set(pressed)) == 12
    assert first.page.evaluate("document.querySelector('#stage img').naturalWidth") == SIDE, "not what networks see"
    assert first.page.evaluate("performance.getEntriesByName('next image').length") >= 3
    assert HOSTILE in first.page.inner_text("#choices") and not first.page.query_selector("#choices img")

    second.context.set_offline(True)  # the network drops
    pressed += second.press("1", "3")
    second.until(lambda: "kept" in second.page.inner_text("#trouble"))
    second.context.set_offline(False)
    second.sent()
    assert labelling.answers() == len(set(pressed)) == 14

    labelling.kill_page()
    pressed += third.press("1", "3")
    third.sent()
    assert labelling.answers() == len(set(pressed)) == 16, "the page goes on by itself"
    pressed += first.press("1")
    first.sent()

    held = first.shown()
    first.page.close()  # and gives back what it held
    second.until(lambda: "published v0" in labelling.log)
    while labelling.answers() < IMAGES:
        for person in (second, third):
            if not person.page.query_selector("#stage[data-id]"):
                person.page.wait_for_timeout(50)
            else:
                pressed += person.press("3")
        assert labelling.process.poll() is None
    assert held in pressed and len(set(pressed)) == len(pressed)
    second.until(lambda: "Thank you" in second.page.inner_text("#notice"))
    assert labelling.process.wait(timeout=60) == 0
    assert labelling.answers() == IMAGES
    for person in people:
        assert not person.problems
        assert all(page.title() != "run" for page in person.context.pages), "a class name was executed"


@pytest.mark.slow
def test_three_people_label_three_hundred_images(
    tmp_path: pathlib.Path, browser: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    training = ("training.epochs=20", "models=resnet18", "width=0.25", "image_size=32", "server_train_threshold=20")
    with LabellingRun(tmp_path, 300, *training) as run:
        run.wait_for_links()
        people = [Person(browser, run.links[name]) for name in ("supervisor", "ada", "bob")]
        pressed: list[int] = []
        while run.answers() < 300:
            for person in people:
                if person.page.query_selector("#stage[data-id]"):
                    pressed += person.press("3")
                else:
                    person.page.wait_for_timeout(20)
            assert run.process.poll() is None
        assert len(set(pressed)) == len(pressed) == 300
        assert run.process.wait(timeout=300) == 0
        ((models,),) = query(run.run, "SELECT count(*) FROM models")
        script = "performance.getEntriesByName('next image').map(entry => entry.duration)"
        times = np.array([entry for person in people for entry in person.page.evaluate(script)])
    assert models > 3 and len(times) > 250 and not any(person.problems for person in people)
    with capsys.disabled():
        figures = ", ".join(f"p{share} {np.percentile(times, share):.0f}" for share in (50, 95, 99, 100))
        print(f"\nfrom a key to the next image, ms, of {len(times)}, while {models} models were trained: {figures}")
