"""Score a saved model on the test set of its data; the servers call the same function."""

import argparse
import dataclasses
import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import nn

from aal.app import data
from aal.config.errors import UserError
from aal.config.loading import read_config, resolve
from aal.config.registry import IMAGE_SETS
from aal.config.settings import Settings
from aal.storage.model_files import load_model
from aal.training.acceleration import fuse_batch_norm
from aal.training.devices import resolve_device
from aal.training.images import Ids, ImageBank, Normalisation
from aal.training.inference import predict
from aal.training.networks import restore_model

EXAMPLE = "example: python eval.py --path runs/cifar10/models/training-0006-server-0.pt"

# What fits every set; its test images do not depend on them.
ANY_RUN = {"models": "cnn", "initial_size": 1, "val_size": 0, "worker_num": 1, "server_train_threshold": 1}


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How well a model does on labelled images.

    Attributes:
        accuracy: share of right answers.
        loss: mean cross-entropy, in nats.
        per_class: accuracy of each class; None for a class without images.
        images: how many there were.
        images_per_s: how fast they were scored.
    """

    accuracy: float
    loss: float
    per_class: list[float | None]
    images: int
    images_per_s: float


def evaluate(
    model: nn.Module,
    bank: ImageBank,
    ids: Ids,
    labels: Ids,
    *,
    normalisation: Normalisation,
    precision: str = "auto",
    heartbeat: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Scores a model.

    Args:
        model: on the bank's device.
        bank: the images.
        ids: (n,) of the images to score, at least one.
        labels: (n,) of these.
        normalisation: of the pixels, as in training.
        precision: as in the training settings.
        heartbeat: called before each batch; what it raises ends the work.
    """
    started_at = time.perf_counter()
    logits = predict(
        fuse_batch_norm(model), bank, ids, normalisation=normalisation, precision=precision, heartbeat=heartbeat
    )
    seconds = time.perf_counter() - started_at
    truth = torch.as_tensor(labels)
    right = logits.argmax(1) == truth
    classes = logits.shape[1]
    images = torch.bincount(truth, minlength=classes).tolist()
    hits = torch.bincount(truth[right], minlength=classes).tolist()
    return Evaluation(
        accuracy=right.float().mean().item(),
        loss=F.cross_entropy(logits, truth).item(),
        per_class=[hit / number if number else None for hit, number in zip(hits, images, strict=True)],
        images=len(truth),
        images_per_s=len(truth) / seconds,
    )


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="eval.py", description=__doc__, epilog=EXAMPLE)
    parser.add_argument("--path", required=True, help="the model file")
    parser.add_argument("--data_type", help="the image set (default: the one that the file names)")
    parser.add_argument("--data_dir", help="where the images are (default: as in the run's config, or data/downloads)")
    parser.add_argument("--prepared_dir", help="where the prepared arrays are (default: beside the images)")
    parser.add_argument("--model", help="a network of your own, package.module:object; a file alone imports nothing")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:i (default: auto)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args(words)


def _settings(arguments: argparse.Namespace, payload: dict[str, Any]) -> Settings:
    """The settings of the run that made the model, as far as they decide which images are its test set."""
    trained = payload["data"]
    data_type = arguments.data_type or trained["data_type"]
    if arguments.data_type is None and IMAGE_SETS.is_users_own(data_type):
        raise UserError(f"{arguments.path}: its images come from a user's own code; add --data_type {data_type}")
    places = {key: getattr(arguments, key) for key in ("data_dir", "prepared_dir") if getattr(arguments, key)}
    tree = {
        "data_type": data_type,
        "data_options": trained.get("data_options", {}),
        "devices": {"servers": arguments.device},
        **(places or _places_of_run(pathlib.Path(arguments.path))),
        **ANY_RUN,
    }
    settings = resolve(tree, "eval.py")
    if settings.data_type != trained["data_type"]:
        raise UserError(
            f"{arguments.path}: was trained on {trained['data_type']}, not {settings.data_type}; change --data_type"
        )
    return settings.model_copy(update={key: trained[key] for key in ("image_size", "test_share", "seed")})


def _places_of_run(path: pathlib.Path) -> dict[str, str]:
    """Returns where the run's config, which lies above the folder of its models, says that the images are."""
    config = path.parent.parent / "config.yaml"
    if not config.is_file():
        return {}
    tree = read_config(config)
    return {key: tree[key] for key in ("data_dir", "prepared_dir") if tree.get(key) is not None}


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


def _score(arguments: argparse.Namespace) -> dict[str, Any]:
    payload = load_model(arguments.path)
    settings = _settings(arguments, payload)
    device = resolve_device(settings.devices.servers[0], 0)
    trusted = []
    if arguments.model:
        payload["architecture"]["name"] = arguments.model
        trusted.append(arguments.model)
    model = restore_model(payload, arguments.path, trusted).to(device, memory_format=torch.channels_last)
    image_set = data.open_set(data.prepare(settings))
    _check_fit(arguments.path, payload, image_set)
    ids = data.split(image_set, settings, shard_num=1).test
    bank = ImageBank(image_set.images, device)
    found = evaluate(model, bank, ids, image_set.labels[ids], normalisation=payload["normalisation"])
    per_class = dict(zip(image_set.classes, found.per_class, strict=True))
    return {**dataclasses.asdict(found), "per_class": per_class, "device": str(device)}


def _show(found: dict[str, Any]) -> None:
    print(f"test accuracy  {found['accuracy']:.4f}")
    print(f"test loss      {found['loss']:.4f}")
    print(f"images         {found['images']}")
    print(f"device         {found['device']}, {found['images_per_s']:.0f} images/s")
    print("accuracy of each class")
    width = max(map(len, found["per_class"]))
    for name, accuracy in found["per_class"].items():
        print(f"  {name:<{width}}  " + ("no images" if accuracy is None else f"{accuracy:.4f}"))


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0 done, 2 the user's mistake, 130 interrupted."""
    try:
        arguments = _arguments(words)
        found = _score(arguments)
        if arguments.json:
            loss = found["loss"] if math.isfinite(found["loss"]) else None  # JSON has no NaN
            print(json.dumps({**found, "loss": loss}))
        else:
            _show(found)
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of the output has closed it, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
