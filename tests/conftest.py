"""What the tests of several files stand on."""

import atexit
import os
import pathlib
import shutil
import signal
import tempfile
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import torch
from matplotlib.figure import Figure

from tests.browsing import FOUND

# What a shell starts in the background ignores Ctrl-C, and so would all that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes is the machine's affair.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# Prepared images go to a cache of the tests' own, also in the processes that they start.
os.environ.setdefault("MPLCONFIGDIR", str(pathlib.Path("~/.cache/matplotlib").expanduser()))
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="aal-tests-")
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)

DRAW = Figure.savefig


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Weights and images that a test draws from PyTorch are the same in every run."""
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def small_pictures() -> Iterator[None]:
    """Pictures are drawn small, and PDF files are empty: whole ones take half of the time of a test of reports."""

    def draw(figure: Figure, path: pathlib.Path, **options: Any) -> None:
        if path.suffix == ".pdf":
            path.touch()
        else:
            DRAW(figure, path, **options | {"dpi": 30})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", draw)
        yield


@pytest.fixture
def whole_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are drawn as users see them."""
    monkeypatch.setattr(Figure, "savefig", DRAW)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """PyTorch computes with one thread meanwhile, so that results do not depend on the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")  # while it is open, its thread has a loop, in which asyncio.run is refused
def browser() -> Iterator[Any]:
    """A browser that is installed, driven by Playwright."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=FOUND, args=["--no-sandbox"])
        yield started
        started.close()
