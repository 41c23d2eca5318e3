"""The folder of a program's sockets: long or full places, and what killed programs leave."""

import os
import pathlib
import tempfile
from collections.abc import Iterator

import pytest

from aal.config.errors import UserError
from aal.engines.local import sockets

pytestmark = pytest.mark.unit


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    """An empty folder for temporary files, whose name is short."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield pathlib.Path(folder)


def test_a_name_too_long_for_a_socket_is_replaced(place: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = place / ("x" * 90)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    folder = sockets._new_folder()
    assert folder.parent == pathlib.Path("/tmp") and folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("reason", ["too long", "full"])
def test_no_place_for_sockets_is_one_line(place: pathlib.Path, monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    if reason == "full":
        monkeypatch.setattr(tempfile, "mkdtemp", raises(OSError(28, "No space left on device")))
    else:
        monkeypatch.setattr(sockets, "LONGEST", 3)
    with pytest.raises(UserError, match=r"^TMPDIR: .*no place for sockets: .*; set TMPDIR to a folder that has room$"):
        sockets._new_folder()


def raises(error: OSError) -> object:
    def call(**_: object) -> None:
        raise error

    return call


def test_what_killed_programs_left_goes_and_what_is_in_use_stays(place: pathlib.Path) -> None:
    """A program may have been killed at any moment: before it had locked its folder, or while it removed it."""
    left, empty, used = (place / f"{sockets.PREFIX}{name}" for name in ("left", "empty", "used"))
    for folder in (left, empty, used):
        folder.mkdir()
    (left / "listener-1").touch()
    (place / f"{sockets.PREFIX}link").symlink_to(place)
    held = sockets._locked(used)
    assert held is not None
    own = sockets._new_folder()
    assert sorted(place.iterdir()) == sorted([own, used, place / f"{sockets.PREFIX}link"])
    os.close(held)
