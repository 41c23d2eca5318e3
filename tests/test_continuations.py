"""What a client keeps from round to round."""

import logging
import pathlib

import pytest
import torch

from aal.coordination.federation import LocalJob, kept_with
from aal.training.continuations import load_continuation, save_continuation
from aal.training.trainer import Continuation

pytestmark = pytest.mark.unit

MODEL = "models/local-00003-client-1.pt"


def test_what_is_kept_goes_on_and_what_is_damaged_does_not(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One flipped bit of the weights, which PyTorch does not notice by itself."""
    momentum = torch.full((64,), 0.5)
    save_continuation(tmp_path, MODEL, Continuation(2, {"head.weight": {"momentum_buffer": momentum}}, {}))
    job = LocalJob(5, 10, owner=1, previous=MODEL)
    found = load_continuation(tmp_path, job, 2)
    assert torch.equal(found.optimizer["head.weight"]["momentum_buffer"], momentum) and not caplog.records
    path = tmp_path / kept_with(MODEL)
    content = bytearray(path.read_bytes())
    content[content.index(momentum.numpy().tobytes()) + 3] ^= 0x40
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING, logger="aal"):
        anew = load_continuation(tmp_path, job, 2)
    assert (anew.epochs, anew.optimizer, anew.statistics) == (2, {}, {})
    assert "so the client begins anew: it is missing, or its bytes are not those that were written" in caplog.text


def test_what_is_not_finite_is_not_kept(tmp_path: pathlib.Path) -> None:
    for wrong in (float("nan"), float("inf")):
        kept = {"head.weight": {"momentum_buffer": torch.tensor([0.0, wrong])}}
        save_continuation(tmp_path, MODEL, Continuation(2, kept, {}))
        save_continuation(tmp_path, MODEL, Continuation(2, {}, {"norm.running_var": torch.tensor([wrong])}))
        assert not (tmp_path / kept_with(MODEL)).exists()
