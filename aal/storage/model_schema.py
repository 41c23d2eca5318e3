"""What a model file may hold: a strict form, whoever wrote the file."""

from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from aal.config.settings import Share

FORMAT = 1


class _Part(BaseModel):
    """Strict, so that a file from elsewhere can hold nothing that a reader does not expect."""

    model_config = ConfigDict(strict=True, extra="allow", arbitrary_types_allowed=True)


class _Architecture(_Part):
    """`aal.training.networks.Architecture`; whether there is such a network is found out when it is built."""

    model_config = ConfigDict(strict=True, extra="forbid")

    name: str
    classes: Annotated[int, Field(ge=1, le=1_000_000)]
    channels: Annotated[int, Field(ge=1, le=2**17)]  # of features, their length
    image_size: Annotated[int, Field(ge=1, le=4096)]
    options: dict[str, Any]


class _Normalisation(_Part):
    mean: Annotated[list[float], Field(min_length=1)]
    std: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)]


class _Data(_Part):
    data_type: str
    image_size: Annotated[int, Field(ge=8)] | None
    test_share: Share | None
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    images: str


def _plain(weight: torch.Tensor) -> torch.Tensor:
    """Refuses what no network here holds and what PyTorch would silently convert."""
    is_plain = weight.layout is torch.strided and not weight.is_quantized and not weight.is_complex()
    if not is_plain or (weight.is_floating_point() and weight.dtype != torch.float32):
        raise ValueError(f"weights must be float32, not {weight.dtype}, {weight.layout}")
    return weight


class _ModelFile(_Part):
    format: Literal[1]
    state_dict: dict[str, Annotated[torch.Tensor, AfterValidator(_plain)]]
    architecture: _Architecture
    normalisation: _Normalisation
    data: _Data
    class_names: list[str]
    labels: int
    epoch: int


def checked(payload: dict[str, Any]) -> dict[str, Any]:
    """Returns the payload of a model file in today's form; files of version 0.1.0 named the width beside the options.

    Raises:
        ValidationError: it is not of that form.
        KeyError: it has no architecture.
    """
    architecture = payload["architecture"]
    if isinstance(architecture, dict) and "options" not in architecture and "width" in architecture:
        named = {key: value for key, value in architecture.items() if key != "width"}
        payload = {**payload, "architecture": {**named, "options": {"width": architecture["width"]}}}
    _ModelFile.model_validate(payload)
    return payload
