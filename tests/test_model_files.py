"""Model files: whole or not there, and never run."""

import os
import pathlib
import pickle
import signal
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from aal.config.errors import UserError
from aal.storage.checksum import is_intact
from aal.storage.model_files import load_model, save_model
from aal.training.networks import Architecture, restore_model

pytestmark = pytest.mark.unit
ROOT = pathlib.Path(__file__).resolve().parent.parent


def payload(**changes: Any) -> dict[str, Any]:
    return {
        "format": 1,
        "state_dict": {"head.weight": torch.ones(2, 3), "head.count": torch.tensor(1)},
        "architecture": {"name": "cnn", "classes": 2, "channels": 3, "image_size": 32, "options": {"width": 1.0}},
        "normalisation": {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]},
        "data": {"data_type": "folder", "image_size": 32, "test_share": None, "seed": 0, "images": "digits-0"},
        "class_names": ["cat", "dog"],
        "labels": 5,
        "epoch": 1,
        **changes,
    }


def names(folder: pathlib.Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_model_comes_back_as_it_was(tmp_path: pathlib.Path) -> None:
    save_model(tmp_path / "m.pt", payload(history=[{"loss": float("nan"), "val_accuracy": None}]))
    found = load_model(tmp_path / "m.pt")
    assert found["format"] == 1
    assert torch.equal(found["state_dict"]["head.weight"], torch.ones(2, 3))
    assert {**found, "state_dict": 0, "history": 0} == {**payload(), "state_dict": 0, "history": 0}
    assert names(tmp_path) == ["m.pt"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failing_save_leaves_the_old_file_alone(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    save_model(tmp_path / "m.pt", payload(labels=5))
    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(OSError, match="No space left on device"):
            save_model(tmp_path / "m.pt", payload(labels=6))
    assert load_model(tmp_path / "m.pt")["labels"] == 5
    assert names(tmp_path) == ["m.pt"]


def test_a_kill_in_the_middle_of_a_save_leaves_the_old_file(tmp_path: pathlib.Path) -> None:
    save_model(tmp_path / "m.pt", payload(labels=5))
    code = (
        "import os, signal, sys\n"
        "from aal.storage.model_files import save_model\n"
        "from tests.test_model_files import payload\n"
        "os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)\n"
        "save_model(sys.argv[1], payload(labels=6))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, tmp_path / "m.pt"], cwd=ROOT, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert load_model(tmp_path / "m.pt")["labels"] == 5
    assert list(tmp_path.glob("*.pt")) == [tmp_path / "m.pt"]
    assert len(names(tmp_path)) == 2  # the other one is not taken for a model


@pytest.mark.parametrize(
    "changes",
    [
        {"state_dict": {"w": torch.ones(2, dtype=torch.bfloat16)}},
        {"architecture": {"name": "cnn"}},
        {"normalisation": {"mean": [np.float64(0.5)], "std": [np.float64(0.5)]}},
        {"labels": None},
    ],
)
def test_only_plain_payloads_are_saved(tmp_path: pathlib.Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"m\.pt: "):
        save_model(tmp_path / "m.pt", payload(**changes))
    assert names(tmp_path) == []


def refused(path: pathlib.Path) -> str:
    with pytest.raises(UserError) as caught:
        load_model(path)
    assert len(caught.value.problems) == 1
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_no_model_file_is_refused_in_one_line(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "m.pt"
    assert "No such file" in refused(path)
    assert "directory" in refused(tmp_path)
    for content in (b"", b"hello", os.urandom(1000), pickle.dumps({"format": 1}), b"PK\x03\x04"):
        path.write_bytes(content)
        assert "not a model file" in refused(path)
    torch.save(payload(format=2), path)
    assert "format 1: format: input should be 1" in refused(path)
    torch.save([1, 2], path)
    assert "not a model file" in refused(path)
    broken = payload()
    del broken["normalisation"]
    torch.save(broken, path)
    assert "normalisation: field required" in refused(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path: pathlib.Path, share: float) -> None:
    path = tmp_path / "m.pt"
    save_model(path, payload())
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "damaged" in refused(path)


class Hostile:
    def __init__(self, marker: pathlib.Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return pathlib.Path.touch, (self.marker,)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_file_is_never_run(tmp_path: pathlib.Path, legacy: bool) -> None:
    path, marker = tmp_path / "m.pt", tmp_path / "marker"
    hostile = payload(extra=Hostile(marker))
    torch.save(hostile, path, _use_new_zipfile_serialization=not legacy)
    assert "nothing in it was run" in refused(path)
    path.write_bytes(pickle.dumps(hostile))
    assert "nothing in it was run" in refused(path)
    assert not marker.exists()
    pickle.loads(path.read_bytes())
    assert marker.exists()  # so the file was hostile indeed


def test_a_flipped_bit_is_noticed_wherever_it_is(tmp_path: pathlib.Path) -> None:
    path, chance = tmp_path / "m.pt", np.random.default_rng(0)
    save_model(path, payload())
    content = path.read_bytes()
    for place in range(0, len(content), 5):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(chance.integers(8))
        path.write_bytes(damaged)
        assert not is_intact(path), place
    assert "damaged" in refused(path)


def test_a_file_of_an_earlier_version_is_checked_by_the_sums_of_zip(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "m.pt"
    torch.save(payload(), path)
    assert load_model(path)["labels"] == 5
    content = bytearray(path.read_bytes())
    content[content.index(torch.ones(2, 3).numpy().tobytes()) + 2] ^= 1
    path.write_bytes(content)
    assert "damaged" in refused(path)


@pytest.mark.parametrize(
    "weight",
    [torch.ones(2, dtype=torch.complex64), torch.ones(2, dtype=torch.float64), torch.ones(2, 2).to_sparse()],
    ids=["complex", "float64", "sparse"],
)
def test_weights_that_no_network_holds_are_refused(tmp_path: pathlib.Path, weight: torch.Tensor) -> None:
    torch.save(payload(state_dict={"head.weight": weight}), tmp_path / "m.pt")
    assert "weights must be float32" in refused(tmp_path / "m.pt")


def test_a_pipe_is_not_waited_for(tmp_path: pathlib.Path) -> None:
    os.mkfifo(tmp_path / "m.pt")
    assert "is no file" in refused(tmp_path / "m.pt")


def test_a_huge_head_in_a_small_file_costs_nothing(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No weights are drawn, nor memory taken, for a network that the file's own do not fit."""
    path = tmp_path / "m.pt"
    size = {"classes": 1_000_000, "channels": 3, "image_size": 32, "options": {"width": 4.0}}
    save_model(path, payload(architecture={"name": "vgg16", **size}))
    monkeypatch.setattr(Architecture, "build", lambda *_: pytest.fail("8 GB of weights"))
    with pytest.raises(UserError, match="do not fit"):
        restore_model(load_model(path), path)
