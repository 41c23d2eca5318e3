"""Score saved models on the test set of their data; the servers call the same function."""

import argparse
import dataclasses
import json
import math
import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from aal.config.terminal import ArgumentParser, check_before_imports, escaped, run_command, write_line

if __name__ == "__main__":  # before PyTorch, which takes seconds and memory
    check_before_imports()

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from tabulate import tabulate
from torch import nn

from aal.app import data
from aal.config.errors import UserError
from aal.config.loading import read_config, resolve
from aal.config.registry import IMAGE_SETS, NETWORKS
from aal.config.settings import Settings
from aal.features import with_features
from aal.storage.model_files import load_model
from aal.training.acceleration import fuse_batch_norm
from aal.training.devices import resolve_device
from aal.training.images import Ids, ImageBank, Normalisation
from aal.training.inference import predict
from aal.training.networks import restore_model
from aal.training.process import set_up_alone

EXAMPLE = "example: python eval.py --path runs/cifar10/models/training-0006-server-0.pt"

PRECISIONS = ("float32", "bf16")
PLACES = ("data_dir", "prepared_dir", "features")

# What fits every set; its test images do not depend on them.
ANY_RUN = {"models": "cnn", "initial_size": 1, "val_size": 0, "worker_num": 1, "server_train_threshold": 1}


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How well a model does on labelled images.

    Attributes:
        accuracy: share of right answers, an exact ratio of two counts.
        loss: mean cross-entropy, in nats.
        confusion: (classes, classes) int64, how many images of each class (row) were taken for each class (column).
        images: how many there were.
        images_per_s: how fast they were scored.
        precision: in which the network computed.
    """

    accuracy: float
    loss: float
    confusion: np.ndarray
    images: int
    images_per_s: float
    precision: str

    @property
    def per_class(self) -> list[float | None]:
        """Accuracy of each class; None for a class without images."""
        images, right = self.confusion.sum(axis=1).tolist(), self.confusion.diagonal().tolist()
        return [hits / number if number else None for hits, number in zip(right, images, strict=True)]


def evaluate(
    model: nn.Module,
    bank: ImageBank,
    ids: Ids,
    labels: Ids,
    *,
    normalisation: Normalisation,
    precision: str = "float32",
    heartbeat: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Scores a model.

    Args:
        model: on the bank's device.
        bank: the images.
        ids: (n,) of the images to score, at least one.
        labels: (n,) of these.
        normalisation: of the pixels, as in training.
        precision: float32, whose figures are the same on every device to four digits, or bf16.
        heartbeat: called before each batch; what it raises ends the work.
    """
    started_at = time.perf_counter()
    logits = predict(
        fuse_batch_norm(model), bank, ids, normalisation=normalisation, precision=precision, heartbeat=heartbeat
    )
    seconds = time.perf_counter() - started_at
    truth = torch.as_tensor(labels)
    classes = logits.shape[1]
    confusion = torch.bincount(truth * classes + logits.argmax(1), minlength=classes**2).reshape(classes, classes)
    return Evaluation(
        accuracy=int(confusion.trace()) / len(truth),
        loss=F.cross_entropy(logits, truth).item(),
        confusion=confusion.numpy(),
        images=len(truth),
        images_per_s=len(truth) / seconds,
        precision=precision,
    )


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(prog="eval.py", description=__doc__, epilog=EXAMPLE)
    parser.add_argument(
        "--path",
        required=True,
        nargs="+",
        help="the model file; nothing else is needed where it lies in its run. Of several, as of target models, the "
        "accuracies, their mean and standard deviation are printed",
    )
    parser.add_argument("--data_type", help="the image set (default: the one that the file names)")
    parser.add_argument("--data_dir", help="where the images are (default: as in the run's config, or data/downloads)")
    parser.add_argument("--prepared_dir", help="where the prepared arrays are (default: in ~/.cache/aal)")
    parser.add_argument(
        "--features", help="what a network that learns on features saw (default: as in the run's config)"
    )
    parser.add_argument("--model", help="a network of your own, package.module:object; a file alone imports nothing")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:i (default: auto)")
    parser.add_argument("--precision", default="float32", choices=PRECISIONS, help="default: float32, as reported")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args(words)


def _settings(arguments: argparse.Namespace, path: str, payload: dict[str, Any]) -> Settings:
    """The settings of the run that made the model, as far as they decide which images are its test set."""
    trained = payload["data"]
    data_type = arguments.data_type or trained["data_type"]
    if arguments.data_type is None and IMAGE_SETS.is_users_own(data_type):
        raise UserError(f"{path}: its images come from a user's own code; add --data_type {data_type}")
    places = {key: getattr(arguments, key) for key in PLACES if getattr(arguments, key)}
    tree = {
        "data_type": data_type,
        "data_options": trained.get("data_options", {}),
        "devices": {"servers": arguments.device},
        **(places or _places_of_run(pathlib.Path(path))),
        **ANY_RUN,
    }
    settings = resolve(tree, "eval.py")
    if settings.data_type != trained["data_type"]:
        raise UserError(f"{path}: was trained on {trained['data_type']}, not {settings.data_type}; change --data_type")
    return settings.model_copy(update={key: trained[key] for key in ("image_size", "test_share", "seed")})


def _places_of_run(path: pathlib.Path) -> dict[str, str]:
    """Returns where the run's config, which lies above the folder of its models, says that the images are.

    A relative folder of an earlier version's config is looked for from here, then from the run directory upwards.
    """
    run = path.absolute().parent.parent
    if not (run / "config.yaml").is_file():
        return {}
    tree = read_config(run / "config.yaml")
    named = {key: tree[key] for key in PLACES if isinstance(tree.get(key), str)}

    def found(folder: str) -> str:
        return next((str(base / folder) for base in (pathlib.Path(), *run.parents) if (base / folder).exists()), folder)

    return {key: found(folder) for key, folder in named.items()}


def _shown(path: str, settings: Settings, payload: dict[str, Any]) -> data.ImageSet:
    """Returns the set as the network sees it: its images, or their features."""
    image_set = data.open_set(data.prepare(settings))
    if NETWORKS.facts(payload["architecture"]["name"]).get("learns_on") != "features":
        return image_set
    if settings.features is None:
        raise UserError(f"{path}: its network learned on features; name them with --features")
    features = with_features(settings, image_set).features
    assert features is not None
    return data.on_features(image_set, features.path)


def _check_fit(path: str, payload: dict[str, Any], image_set: data.ImageSet) -> None:
    architecture, side, channels = payload["architecture"], image_set.images.shape[1], image_set.images.shape[3]
    if payload["class_names"] != list(image_set.classes) or architecture["classes"] != len(image_set.classes):
        raise UserError(
            f"{path}: was trained on {architecture['classes']} classes ({_few(payload['class_names'])}), "
            f"the data has {len(image_set.classes)} ({_few(image_set.classes)}); check --data_dir"
        )
    if (architecture["image_size"], architecture["channels"]) != (side, channels):
        wanted = f"{architecture['image_size']} pixels a side and {architecture['channels']} channels"
        raise UserError(f"{path}: takes images of {wanted}, the data has {side} and {channels}; check --data_dir")
    if payload["data"]["images"] != image_set.folder.name:  # another test set, which may hold images it was trained on
        raise UserError(f"{path}: was trained on other images than those that are there now; check --data_dir")
    for key, values in payload["normalisation"].items():
        if len(values) != channels:
            raise UserError(f"{path}: normalises {len(values)} channels by its {key}, the data has {channels}")


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _score(arguments: argparse.Namespace, path: str) -> dict[str, Any]:
    payload = load_model(path)
    settings = _settings(arguments, path, payload)
    device = resolve_device(settings.devices.servers[0])
    trusted = []
    if arguments.model:
        payload["architecture"]["name"] = arguments.model
        trusted.append(arguments.model)
    model = restore_model(payload, path, trusted).to(device, memory_format=torch.channels_last)
    image_set = _shown(path, settings, payload)
    _check_fit(path, payload, image_set)
    ids = data.split(image_set, settings, shard_num=1).test
    if not len(ids):
        raise UserError(f"{path}: no image is labelled from the start, so there is no test set; see the run's report")
    bank = ImageBank(image_set.images, device)
    set_up_alone()
    found = evaluate(
        model,
        bank,
        ids,
        image_set.labels[ids],
        normalisation=payload["normalisation"],
        precision=arguments.precision,
    )
    return {
        **dataclasses.asdict(found),
        "confusion": found.confusion.tolist(),
        "per_class": dict(zip(image_set.classes, found.per_class, strict=True)),
        "device": str(device),
    }


def _show(found: dict[str, Any]) -> None:
    write_line(f"test accuracy  {found['accuracy']:.4f}  ({found['precision']})", sys.stdout)
    write_line(f"test loss      {found['loss']:.4f}", sys.stdout)
    write_line(f"images         {found['images']}", sys.stdout)
    write_line(f"device         {found['device']}, {found['images_per_s']:.0f} images/s", sys.stdout)
    write_line("", sys.stdout)
    names = [*map(escaped, found["per_class"])]
    rows = []
    for number, (accuracy, row) in enumerate(zip(found["per_class"].values(), found["confusion"], strict=True)):
        others = [0 if other == number else count for other, count in enumerate(row)]
        most = max(others)
        mistaken = f"{names[others.index(most)]} ({most})" if most else ""
        rows.append((names[number], "no images" if accuracy is None else f"{accuracy:.4f}", sum(row), mistaken))
    head = ("class", "accuracy", "images", "most often taken for")
    align = ("left", "right", "right", "left")
    for line in tabulate(rows, head, tablefmt="simple", disable_numparse=True, colalign=align).splitlines():
        write_line(line, sys.stdout)


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0 done, 2 the user's mistake, 130 interrupted."""
    return run_command(lambda: _evaluate(_arguments(words)))


def _evaluate(arguments: argparse.Namespace) -> int:
    _check_same_test(arguments.path)
    found = [_score(arguments, path) for path in arguments.path]
    if arguments.json:
        one = [{**score, "loss": score["loss"] if math.isfinite(score["loss"]) else None} for score in found]
        write_line(json.dumps(one[0] if len(one) == 1 else _together(arguments.path, one)), sys.stdout)
    elif len(found) == 1:
        _show(found[0])
    else:
        _show_together(_together(arguments.path, found))
    return 0


def _check_same_test(paths: Sequence[str]) -> None:
    """Checks that models are of the same classes and images; means over others would say nothing."""
    if len(paths) < 2:
        return
    first, *others = [load_model(path) for path in paths]
    problems = []
    for path, other in zip(paths[1:], others, strict=True):
        if other["class_names"] != first["class_names"]:
            problems.append(f"{path}: has other classes than {paths[0]}; score it by itself")
        elif _test_set(other) != _test_set(first):
            problems.append(f"{path}: has other test images than {paths[0]}; score it by itself")
    if problems:
        raise UserError(*problems)


def _test_set(payload: dict[str, Any]) -> tuple[Any, ...]:
    data = payload["data"]  # of a set that is divided for testing, by a share and a seed
    divided = () if IMAGE_SETS.facts(data["data_type"]).get("own_test") else (data["test_share"], data["seed"])
    return data["images"], *divided


def _together(paths: Sequence[str], found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What is said of several models: the mean of their accuracies, and the standard deviation over them."""
    accuracies = [one["accuracy"] for one in found]
    models = [{"path": path, **one} for path, one in zip(paths, found, strict=True)]
    return {"mean_accuracy": float(np.mean(accuracies)), "std_accuracy": float(np.std(accuracies)), "models": models}


def _show_together(together: dict[str, Any]) -> None:
    rows = [(escaped(one["path"]), f"{one['accuracy']:.4f}", f"{one['loss']:.4f}") for one in together["models"]]
    mean, std = f"{together['mean_accuracy']:.4f}", f"{together['std_accuracy']:.4f}"
    rows += [("mean", mean, ""), ("standard deviation", std, "")]
    head, align = ("model", "test accuracy", "test loss"), ("left", "right", "right")
    for line in tabulate(rows, head, tablefmt="simple", disable_numparse=True, colalign=align).splitlines():
        write_line(line, sys.stdout)


if __name__ == "__main__":
    sys.exit(main())
