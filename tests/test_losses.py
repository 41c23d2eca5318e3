"""What a training's losses say: nonsense in the settings is reported instead of trained."""

import json
import logging
import pathlib
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from aal.app import main
from aal.app.models import build_model
from aal.app.server_train import fit
from aal.config.errors import UserError
from aal.config.loading import load
from aal.config.presets import RECIPES
from aal.config.settings import TrainingSettings
from aal.reporting.progress import Progress
from aal.training.images import ImageBank
from aal.training.loss_checks import suspicion
from aal.training.trainer import FittedModel, TrainingTask
from tests.builders import query
from tests.test_runs import QUICK

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("one_thread")]


def fitted(model: nn.Module | None = None, batches: int = 10**9, **changes: Any) -> FittedModel:
    """A training of six epochs of two batches, of which the weights are spoilt after so many batches."""
    plain = {"epochs": 6, "batch_size": 8, "validate_after": 1, "precision": "float32", "flip": False}
    settings = TrainingSettings(**{**RECIPES["modern"], **plain, **changes})
    images = np.random.RandomState(0).randint(0, 256, (24, 8, 8, 1)).astype(np.uint8)
    labels, model = np.arange(24) % 2, model or build_model("cnn", classes=2, channels=1, image_size=8, seed=0)
    left = [batches]

    def spoil() -> None:
        left[0] -= 1
        if left[0] < 0:
            with torch.no_grad():
                next(model.parameters()).fill_(float("nan"))

    task = TrainingTask(
        *(ImageBank(images, torch.device("cpu")), np.arange(16), labels[:16], settings),
        {"mean": [0.5], "std": [0.25]},
        seed=0,
        validation_ids=np.arange(16, 24),
        validation_labels=labels[16:],
        heartbeat=spoil,
    )
    return fit(model, task)


def test_a_training_whose_loss_is_no_number_ends() -> None:
    with pytest.raises(UserError, match=r"^training: its loss is (nan|inf) in epoch [1-6]; lower training\.learning_"):
        fitted(learning_rate=1000.0, weight_decay=1000.0, schedule="constant", validate_after=6)


def test_the_best_epoch_before_such_a_loss_is_kept() -> None:
    found = fitted(batches=8)  # three epochs of two batches, two of them validated, and validations of one
    assert found.epoch in (2, 3)
    assert [np.isfinite(epoch["loss"]) for epoch in found.history] == [True, True, True, False], "no epoch after it"
    assert all(value.isfinite().all() for value in found.state_dict.values())
    assert suspicion(found.history, 2) == "training: its loss is nan in epoch 4; the best epoch before is kept"


def test_losses_that_a_user_should_know_of() -> None:
    def of(*losses: float) -> str:
        return suspicion([{"epoch": number, "loss": loss} for number, loss in enumerate(losses, 1)], classes=10)

    assert of(2.31, 2.30) == "", "chance is 2.303"
    assert of() == ""
    assert of(2.5, 2.31).startswith("training: its loss never fell below that of chance (2.310, chance 2.303), so")
    assert suspicion([{"epoch": 1, "loss": 0.0}], classes=1) == ""


def test_a_model_that_knows_nothing_is_reported_once(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    words = [*QUICK, "engine=simulated", "worker_query_num=1", "training.learning_rate=1e-30", "training.epochs=1"]
    with caplog.at_level(logging.WARNING, "aal"):
        assert main.start(load("digits.yaml", words), str(run), Progress(sys.stderr))[1].exit_code == 0
    ((warning,),) = query(run, "select value from meta where key = 'warning'")
    assert warning.startswith("model v0: training: its loss never fell below that of chance")
    assert capsys.readouterr().err.count("never fell below that of chance") == 1, "on the screen"
    assert f"**Warning**: {warning}" in (run / "report" / "report.md").read_text()
    assert warning.removeprefix("model v0: ") in (run / "log.txt").read_text()
    assert json.loads((run / "summary.json").read_text())["trainings"] > 1
