"""Scalars for TensorBoard, read back from its own files."""

import importlib.util
import pathlib

import pytest

from aal.config.errors import UserError
from aal.config.loading import load
from aal.reporting.progress import Progress
from aal.reporting.tensorboard import FOLDER, check_tensorboard, scalars
from tests.builders import make_run, model

pytestmark = pytest.mark.unit
SETTINGS = load("digits.yaml", ["tensorboard=true"])


def test_a_missing_package_is_reported_before_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    check_tensorboard(load("digits.yaml"))
    with pytest.raises(UserError, match="tensorboard: the package is not installed; pip install tensorboard"):
        check_tensorboard(SETTINGS)


def test_without_the_setting_nothing_is_written(tmp_path: pathlib.Path) -> None:
    run = make_run(tmp_path / "run")
    with scalars(run, load("digits.yaml"), Progress(None)):
        pass
    assert not (run / FOLDER).exists()


def test_several_networks_have_accuracies_of_their_own(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    models = [model(0, 0, 10, 0.0, 2.0, 0.2), model(1, 1, 12, 4.0, 6.0, 0.5, "resnet18")]
    run = make_run(tmp_path / "run", models=models)
    settings = load("digits.yaml", ["tensorboard=true", "models=[cnn,resnet18]", "width=0.25"])
    with scalars(run, settings, Progress(None)):
        pass
    tags = set(EventAccumulator(str(run / FOLDER)).Reload().Tags()["tensors"])
    accuracies = {f"accuracy/{kind}/{name}" for kind in ("test", "validation") for name in ("cnn", "resnet18")}
    assert tags == accuracies | {"labels/bought"}


def test_every_model_is_a_point(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = make_run(
        tmp_path / "run",
        models=[model(0, 0, 10, 0.0, 2.0, 0.2), model(1, 0, 12, 4.0, 6.0, 0.5)],
        offers=[(10, 0, "margin", 0, 0, 3.0), (11, 0, "margin", 0, 1, 5.0)],
        waits=[(0, 1.0, 3.0, 10), (1, 2.0, 5.0, 11), (0, 7.0, 9.0, None)],
        answers=[(0, 10, 0, 1, 4.0), (1, 11, 1, 1, 7.0)],
    )
    for _ in range(2):  # a run that is resumed writes them anew
        with scalars(run, SETTINGS, Progress(None)):
            pass
    events = EventAccumulator(str(run / FOLDER)).Reload()
    found = {
        tag: [(event.step, pytest.approx(event.tensor_proto.float_val[0])) for event in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
    }
    assert found == {
        "accuracy/test": [(10, 0.2), (12, 0.5)],
        "accuracy/validation": [(10, 0.5), (12, 0.5)],
        "labels/bought": [(10, 0.0), (12, 1.0)],
        "annotators/mean_wait_s": [(12, 2.5)],
        "queries/staleness": [(12, 0.5)],
    }
