"""Images of a large set, without a cluster: each comes to a machine when it is first read there, whole and once."""

import pathlib
import shutil
from collections.abc import Callable

import numpy as np
import pytest
import torch

pytest.importorskip("ray", reason="needs ray: pip install .[ray]")

from aal.config.errors import RunFailed
from aal.engines.ray.node_store import NodeStore
from aal.storage import retry
from aal.training.images import ImageBank, shared_bank
from tests.test_ray_files import Direct, served

__all__ = ["served"]
pytestmark = pytest.mark.unit
IMAGES = np.random.default_rng(0).integers(1, 256, (40, 10, 10, 3), np.uint8)  # a row has 300 bytes, a chunk 1000


@pytest.fixture
def bank_of(tmp_path: pathlib.Path, served: tuple[Direct, NodeStore]) -> Callable[[str], ImageBank]:
    np.save(tmp_path / "set" / "images.npy", IMAGES)

    def made(process: str) -> ImageBank:
        here = tmp_path / process / "images.npy"
        arrive = served[1].arriving(tmp_path / "set" / "images.npy", here, 1000)
        assert arrive is not None
        return shared_bank(here, torch.device("cpu"), arrive)

    return made


def read(bank: ImageBank, ids: list[int]) -> bool:
    """Whether a bank gives the images that the set has."""
    return np.array_equal(bank.batch(torch.tensor(ids)).numpy(), IMAGES[ids])


def test_images_come_when_they_are_first_read_once_a_machine(
    tmp_path: pathlib.Path, served: tuple[Direct, NodeStore], bank_of: Callable[[str], ImageBank]
) -> None:
    source, store = served
    first, second = bank_of("first"), bank_of("second")
    for bank, ids, calls in ((first, [3, 30, 4, 5, 3, 6], 2), (second, [5, 3], 0), (second, [39, 5, 0], 1)):
        before = source.calls.count("rows_of")
        assert read(bank, ids) and source.calls.count("rows_of") - before == calls
    first.expect(np.arange(20, 30))
    before = source.calls.count("rows_of")
    assert read(first, [20, 29]) and source.calls.count("rows_of") == before
    here = np.load(tmp_path / "first" / "images.npy").any(axis=(1, 2, 3))
    assert np.array_equal(np.flatnonzero(here), [0, 3, 4, 5, 6, *range(20, 31), 39]), "no other is on this machine"
    assert store.arriving(tmp_path / "set" / "images.npy", tmp_path / "none" / "images.npy", 10**6) is None


def test_what_was_damaged_on_its_way_or_is_another_set_is_not_taken(
    tmp_path: pathlib.Path, served: tuple[Direct, NodeStore], bank_of: Callable[[str], ImageBank]
) -> None:
    source, store = served
    bank = bank_of("first")
    source.damages = True
    with pytest.raises(RunFailed, match="came over with other bytes than they have"):
        read(bank, [5])
    source.damages = False
    assert read(bank, [5])
    np.save(tmp_path / "set" / "images.npy", IMAGES[::-1])
    with pytest.raises(RunFailed, match="is not the file that it was when the run began"):
        read(bank, [6])
    other = store.arriving(tmp_path / "set" / "images.npy", tmp_path / "third" / "images.npy", 1000)
    assert other is not None
    other(np.array([5]))
    assert np.array_equal(np.load(tmp_path / "third" / "images.npy")[5], IMAGES[34]), "it is a copy of its own"


@pytest.mark.parametrize("gone", ["*", "*.rows", "*[0-9a-f]"])
def test_processes_go_on_when_somebody_empties_the_cache(
    tmp_path: pathlib.Path, bank_of: Callable[[str], ImageBank], gone: str
) -> None:
    """A file and what is known of it stay together, whoever has made the next ones."""
    first = bank_of("first")
    assert read(first, [1])
    for path in (tmp_path / "here" / "images").glob(gone):
        path.unlink()
    second = bank_of("second")
    assert read(second, [1, 2]) and read(first, [2, 1, 3]) and read(second, [3])
    shutil.rmtree(tmp_path / "here" / "images")
    assert read(first, [7]) and read(second, [7])


def test_a_process_that_is_killed_before_it_says_what_is_there_costs_another_copy(
    served: tuple[Direct, NodeStore], bank_of: Callable[[str], ImageBank], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = bank_of("first")
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: exec("raise SystemExit"))
        with pytest.raises(SystemExit):
            read(first, [8])
    assert read(bank_of("second"), [8]) and served[0].calls.count("rows_of") == 2


def test_a_disk_that_is_full_for_a_while_is_waited_for(
    bank_of: Callable[[str], ImageBank], monkeypatch: pytest.MonkeyPatch
) -> None:
    bank, fails = bank_of("first"), [True, True, False]
    monkeypatch.setattr(retry, "AGAIN_S", 0.0)

    def fsync(descriptor: int) -> None:
        if fails.pop(0):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fsync)
    assert read(bank, [9]) and not fails
