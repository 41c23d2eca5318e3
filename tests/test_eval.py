"""The scores of a model, and the command that prints them."""

import json
import pathlib
import re
import shutil
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from aal.app import data
from aal.app import eval as evaluation
from aal.app.server_train import fit
from aal.config.loading import resolve
from aal.storage.model_files import load_model, model_payload, save_model
from aal.training import devices
from aal.training.images import ImageBank, normalisation_of
from aal.training.networks import Architecture, restore_model
from aal.training.trainer import TrainingTask

ROOT = pathlib.Path(__file__).resolve().parent.parent
CPU = torch.device("cpu")


class Fixed(torch.nn.Module):
    """Answers with the class that the first pixel names."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot((255 * images[:, 0, 0, 0]).round().long(), 3).float() * 10


@pytest.mark.unit
@pytest.mark.parametrize("in_bf16", [False, True])
def test_the_scores_are_right(in_bf16: bool) -> None:
    answers, truth = np.array([0, 0, 1, 0]), np.array([0, 0, 1, 1])
    images = np.tile(answers.astype(np.uint8)[:, None, None, None], (1, 8, 8, 1))
    plain = {"mean": [0.0], "std": [1.0]}
    precision = "bf16" if in_bf16 else "float32"
    found = evaluation.evaluate(
        Fixed(), ImageBank(images, CPU), np.arange(4), truth, normalisation=plain, precision=precision
    )
    assert (found.accuracy, found.per_class, found.images) == (0.75, [1.0, 0.5, None], 4)
    assert (found.confusion.tolist(), found.precision) == ([[2, 0, 0], [1, 1, 0], [0, 0, 0]], precision)
    log_total = np.log(np.exp(10) + 2)
    assert found.loss == pytest.approx((3 * (log_total - 10) + log_total) / 4)
    assert found.images_per_s > 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, list[str]]:
    """A model that learned the digits, and the words that evaluate it."""
    folder = tmp_path_factory.mktemp("eval")
    tree = {
        "data_type": "digits", "prepared_dir": str(folder / "prepared"), "seed": 3, "test_share": 0.25,
        "models": "cnn", "initial_size": 300, "val_size": 100,
        "training": {"flip": False, "crop_padding": 1, "epochs": 8},
    }  # fmt: skip
    settings = resolve(tree, "test")
    image_set = data.open_set(data.prepare(settings))
    split = data.split(image_set, settings, 1)
    architecture = Architecture("cnn", classes=10, channels=1, image_size=8, options={"width": 0.5})
    normalisation = normalisation_of(settings.training, split.mean, split.std)
    task = TrainingTask(
        ImageBank(image_set.images, CPU),
        split.initial,
        image_set.labels[split.initial],
        settings.training,
        normalisation,
        seed=0,
        validation_ids=split.validation,
        validation_labels=image_set.labels[split.validation],
    )
    fitted = fit(architecture.build(seed=0), task)
    payload = model_payload(
        settings,
        state_dict=fitted.state_dict,
        architecture=architecture.as_dict(),
        normalisation=normalisation,
        class_names=image_set.classes,
        images=image_set.folder.name,
        labels=300,
        epoch=fitted.epoch,
    )
    save_model(folder / "model.pt", payload)
    return folder / "model.pt", ["--prepared_dir", str(folder / "prepared"), "--device", "cpu"]


def command(*words: object) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "eval.py", *(str(word) for word in words)]
    return subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.unit
def test_the_command_scores_the_test_set_of_the_run(trained: tuple[pathlib.Path, list[str]]) -> None:
    path, words = trained
    done = command("--data_type", "Digits", "--path", path, *words, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert set(found) == {"accuracy", "loss", "per_class", "images", "images_per_s", "device", "confusion", "precision"}
    assert found["images"] == round(0.25 * 1797)
    payload = load_model(path)
    image_set = data.open_set(next((path.parent / "prepared").glob("digits-*")))
    tree = {"data_type": "digits", "models": "cnn", "test_share": 0.25, "seed": 3, "initial_size": 9, "val_size": 9}
    test = data.split(image_set, resolve(tree, "test"), 1).test
    bank = ImageBank(image_set.images, CPU)
    expected = evaluation.evaluate(
        restore_model(payload), bank, test, image_set.labels[test], normalisation=payload["normalisation"]
    )
    assert found["accuracy"] == expected.accuracy > 0.7
    assert found["loss"] == pytest.approx(expected.loss, rel=1e-5)
    assert len(found["per_class"]) == 10


def run_here(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = evaluation.main([str(word) for word in words])
    message = capsys.readouterr()
    return code, message.out, message.err


@pytest.mark.unit
def test_people_get_a_table(trained: tuple[pathlib.Path, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    path, words = trained
    code, out, err = run_here(capsys, "--data_type", "digits", "--path", path, *words)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line.split("  ")[0] for line in lines[:4]] == ["test accuracy", "test loss", "images", "device"]
    assert lines[0].endswith("(float32)")
    head, rule, *rows = lines[5:]
    assert [head.index("accuracy") + len("accuracy"), head.index("images") + len("images")] == [
        match.end() for match in re.finditer(" +-+", rule)
    ][:2]
    assert len(rows) == 10 and len({len(row[: len(rule.rpartition("  ")[0])]) for row in rows}) == 1
    assert sum(int(row.split()[2]) for row in rows) == 449


@pytest.mark.unit
def test_the_file_is_enough_wherever_it_is_read(
    trained: tuple[pathlib.Path, list[str]],
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The folders come from the run's config; a relative one of an earlier version is found above the run."""
    run = tmp_path / "project" / "runs" / "one"
    (run / "models").mkdir(parents=True)
    shutil.copy(trained[0], run / "models" / "model.pt")
    shutil.copytree(trained[0].parent / "prepared", tmp_path / "project" / "images" / "prepared")
    (run / "config.yaml").write_text("data_dir: images\nprepared_dir: images/prepared\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    code, out, err = run_here(capsys, "--path", "../project/runs/one/models/model.pt")
    assert (code, err) == (0, "")
    assert out.startswith("test accuracy") and not list(pathlib.Path().iterdir())


@pytest.mark.unit
def test_class_names_cannot_control_the_terminal(
    trained: tuple[pathlib.Path, list[str]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {
        "accuracy": 0.5, "loss": 1.0, "per_class": {"a\x1b[2Jb": 0.5, "c\nd": None}, "images": 2, "images_per_s": 1.0,
        "device": "cpu", "precision": "float32", "confusion": [[1, 1], [0, 0]],
    }  # fmt: skip
    monkeypatch.setattr(evaluation, "_score", lambda arguments, path: found)
    code, out, _ = run_here(capsys, "--path", trained[0])
    assert code == 0 and "\x1b" not in out
    assert "a\\x1b[2Jb" in out and "c\\nd (1)" in out and len(out.splitlines()) == 9


@pytest.mark.unit
def test_the_same_file_scores_the_same_whether_the_device_has_bf16_or_not(
    trained: tuple[pathlib.Path, list[str]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, words = trained
    scores = []
    for has_bf16, threads in ((False, 1), (True, 2)):
        monkeypatch.setattr(devices, "computes_in_bf16", lambda device, has=has_bf16: has)
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            code, out, _ = run_here(capsys, "--path", path, *words, "--json")
        finally:
            torch.set_num_threads(before)
        assert code == 0
        scores.append(json.loads(out))
    first, second = scores
    assert round(first["accuracy"], 4) == round(second["accuracy"], 4) and first["precision"] == "float32"
    assert first["accuracy"] == sum(row[n] for n, row in enumerate(first["confusion"])) / 449  # the exact ratio
    _, out, _ = run_here(capsys, "--path", path, *words, "--precision", "bf16")
    assert "(bf16)" in out.splitlines()[0]


def changed(path: pathlib.Path, folder: pathlib.Path, key: str, value: Any) -> pathlib.Path:
    payload = torch.load(path, weights_only=True)
    payload[key] = {**payload[key], **value} if isinstance(value, dict) else value
    torch.save(payload, folder / "changed.pt")
    return folder / "changed.pt"


@pytest.mark.unit
@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "data",
            {"data_type": "cifar-10", "test_share": None},
            "was trained on cifar-10, not digits; change --data_type",
        ),
        (
            "class_names",
            [str(number) for number in range(1, 11)],
            "was trained on 10 classes (1, 2, 3, ...), the data has 10",
        ),
        ("architecture", {"image_size": 16}, "takes images of 16 pixels a side and 1 channels, the data has 8 and 1"),
        ("architecture", {"classes": 9}, "its weights do not fit its own architecture, cnn"),
        ("normalisation", {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}, "normalises 3 channels"),
        ("data", {"seed": -1}, "data.seed: input should be greater than or equal to 0"),
        (
            "architecture",
            {"name": "lenet"},
            "models: must be vgg16, vgg16_bn, resnet18, resnet8, cnn, linear, torchvision:NAME, mobilenet_v3:NAME or "
            "package.module:object, not lenet",
        ),
        ("state_dict", {"more": torch.zeros(1)}, "its weights do not fit"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    trained: tuple[pathlib.Path, list[str]],
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    key: str,
    value: Any,
    message: str,
) -> None:
    path, words = trained
    other = changed(path, tmp_path, key, value)
    code, out, err = run_here(capsys, "--data_type", "digits", "--path", other, *words)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.unit
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--path", "none.pt"), "none.pt: No such file or directory"),
        (("--path", "eval.py"), "eval.py: is not a model file"),
    ],
)
def test_mistakes_end_with_one_line_and_code_2(words: tuple[str, ...], message: str) -> None:
    done = command("--data_type", "digits", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.unit
def test_other_wrong_words(trained: tuple[pathlib.Path, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    path, words = trained
    code, _, err = run_here(capsys, "--data_type", "mnist", "--path", path)
    assert code == 2
    assert "data_type" in err
    code, _, err = run_here(capsys, "--data_type", "CIFAR10", "--path", path)
    assert (code, err) == (2, f"error: {path}: was trained on digits, not cifar-10; change --data_type\n")
    code, _, err = run_here(capsys, "--data_type", "digits", "--path", path, *words[:2], "--device", "cuda:99")
    assert (code, err.count("\n")) == (2, 1)
    assert "cuda:99 is not there" in err
    code, _, err = run_here(capsys, "--data_type", "digits", "--path", path, *words[:2], "--device", "tpu")
    assert code == 2
    assert "device" in err


@pytest.mark.unit
def test_an_interrupt_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluation, "load_model", interrupted)
    assert evaluation.main(["--data_type", "digits", "--path", "x"]) == 130
