"""Model files that are never half-written, and never run code when they are read."""

import io
import pathlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from pydantic import ValidationError

from aal.config.errors import UserError
from aal.config.settings import Settings
from aal.storage.atomic import write_whole
from aal.storage.checksum import is_intact, with_checksum
from aal.storage.model_schema import FORMAT, checked
from aal.storage.retry import write_with_retry


def model_payload(
    settings: Settings,
    *,
    state_dict: Mapping[str, torch.Tensor],
    architecture: Mapping[str, Any],
    normalisation: Mapping[str, Sequence[float]],
    class_names: Sequence[str],
    images: str,
    labels: int,
    epoch: int,
    **facts: Any,
) -> dict[str, Any]:
    """Returns what a model file holds.

    Args:
        settings: of the run; they say which images are its test set.
        state_dict: float32 weights.
        architecture: `Architecture.as_dict()` of the network.
        normalisation: mean and std of the pixels scaled to 0..1, a number a channel.
        class_names: of the labels 0, 1, ...
        images: name of the prepared set, which stands for its content.
        labels: that were in L when its training began.
        epoch: that was kept.
        **facts: anything else that is plain: numbers, strings, lists, dicts.
    """
    return {
        "state_dict": dict(state_dict),
        "architecture": dict(architecture),
        "normalisation": {key: list(values) for key, values in normalisation.items()},
        "data": {
            "data_type": settings.data_type,
            "data_options": settings.data_options,
            "image_size": settings.image_size,
            "test_share": settings.test_share,
            "seed": settings.seed,
            "images": images,
        },
        "class_names": list(class_names),
        "labels": labels,
        "epoch": epoch,
        **facts,
    }


def save_model(path: str | pathlib.Path, payload: dict[str, Any]) -> None:
    """Writes a model file, whole or not at all: a reader of `path` finds the old file or the new one.

    Args:
        path: of the file; its folder is there.
        payload: as `model_payload` makes it.

    Raises:
        OSError: the file cannot be written.
        ValueError: the payload is not of that form.
    """
    path, payload = pathlib.Path(path), {"format": FORMAT, **payload}
    try:  # what is published can be read; the weights are plain tensors and need not be read back for that
        checked(_read(io.BytesIO(_written({**payload, "state_dict": {}}))))
        checked(payload)
    except Exception as error:
        raise ValueError(f"{path}: not a payload for a model file: {error}") from error
    write_whole(path, with_checksum(_written(payload)))


def save_with_retry(path: pathlib.Path, payload: dict[str, Any], heartbeat: Callable[[], None]) -> None:
    """Saves a model; while the disk does not take it, tries again for a while: a training is expensive.

    Args:
        path: of the file.
        payload: as `model_payload` makes it.
        heartbeat: called between two attempts; what it raises ends them.

    Raises:
        RunFailed: the disk did not take it.
    """
    write_with_retry(lambda: save_model(path, payload), f"{path}: the model", heartbeat)


def load_model(path: str | pathlib.Path) -> dict[str, Any]:
    """Returns the payload of a model file, its weights mapped from the file; nothing in the file is ever run.

    Raises:
        UserError: there is no such file, or it is no model file, or it is damaged.
    """
    path = pathlib.Path(path)
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise UserError(f"{path}: is a directory" if path.is_dir() else f"{path}: is no file")
        path.open("rb").close()  # an OSError of PyTorch's has no strerror
        if not is_intact(path):
            raise ValueError("its bytes are not those that were written")
        return checked(_read(path))
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path}: is not a model file of format {FORMAT}: {key}: {first['msg'].lower()}") from None
    except Exception:  # PyTorch, zipfile and pickle raise a dozen kinds for damaged and for hostile files
        raise UserError(f"{path}: is not a model file, or is damaged; nothing in it was run") from None


def _written(payload: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(payload, buffer)
    return buffer.getvalue()


def _read(file: str | pathlib.Path | io.BytesIO) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's guesses about foreign files
        return torch.load(file, map_location="cpu", weights_only=True, mmap=not isinstance(file, io.BytesIO))
