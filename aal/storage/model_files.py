"""Model files that are never half-written, and never run code when they are read."""

import io
import pathlib
import warnings
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aal.config.errors import UserError
from aal.config.settings import DataType, ModelName, Share
from aal.storage.atomic import write_whole

FORMAT = 1


class _Part(BaseModel):
    """Strict, so that a file from elsewhere can hold nothing that a reader does not expect."""

    model_config = ConfigDict(strict=True, extra="allow", arbitrary_types_allowed=True)


class _Architecture(_Part):
    model_config = ConfigDict(strict=True, extra="forbid")

    name: ModelName
    classes: Annotated[int, Field(ge=1, le=1_000_000)]
    channels: Literal[1, 3]
    image_size: Annotated[int, Field(ge=1, le=4096)]
    width: Annotated[float, Field(gt=0, le=4)]


class _Normalisation(_Part):
    mean: Annotated[list[float], Field(min_length=1)]
    std: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)]


class _Data(_Part):
    data_type: DataType
    image_size: Annotated[int, Field(ge=8)] | None
    test_share: Share | None
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    images: str


class _ModelFile(_Part):
    format: Literal[1]
    state_dict: dict[str, torch.Tensor]
    architecture: _Architecture
    normalisation: _Normalisation
    data: _Data
    class_names: list[str]
    labels: int
    epoch: int


def save_model(path: str | pathlib.Path, payload: dict[str, Any]) -> None:
    """Writes a model file, whole or not at all: whoever opens `path` finds the old file or the new one.

    Args:
        path: of the file; its folder is there.
        payload: state_dict (float32 weights), architecture (arguments of `models.build_model` without the seed),
            normalisation (mean and std, a number a channel), data (data_type, image_size, test_share, seed, and images,
            the name of the prepared set, which tells its content),
            class_names, labels (how many it learned from), epoch; anything else that is plain: numbers, strings,
            lists, dicts.

    Raises:
        OSError: the file cannot be written.
        ValueError: the payload is not as above.
    """
    path = pathlib.Path(path)
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **payload}, buffer)
    content = buffer.getvalue()
    try:
        state = _read(content)["state_dict"]  # what is published can be read
    except Exception as error:
        raise ValueError(f"{path}: not a payload for a model file: {error}") from error
    if any(weight.is_floating_point() and weight.dtype != torch.float32 for weight in state.values()):
        raise ValueError(f"{path}: weights are stored in float32 only")
    write_whole(path, content)


def load_model(path: str | pathlib.Path) -> dict[str, Any]:
    """Returns the payload of a model file, its weights on the CPU; nothing in the file is ever run.

    Raises:
        UserError: there is no such file, or it is no model file, or it is damaged.
    """
    try:
        return _read(pathlib.Path(path).read_bytes())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path}: is not a model file of format {FORMAT}: {key}: {first['msg'].lower()}") from None
    except Exception:  # PyTorch, zipfile and pickle raise a dozen kinds for damaged and for hostile files
        raise UserError(f"{path}: is not a model file, or is damaged; nothing in it was run") from None


def _read(content: bytes) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's guesses about foreign files
        payload = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    _ModelFile.model_validate(payload)
    return payload
