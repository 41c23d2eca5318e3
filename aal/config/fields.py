"""What the groups of settings are built from: their base, and types of numbers."""

import pathlib
from typing import Annotated, ClassVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError


def listed(value: object) -> object:
    """Lets one name stand for a list of it."""
    return [value] if isinstance(value, str) else value


def _usable_path(text: str) -> str:
    try:
        pathlib.Path(text).expanduser()
    except RuntimeError:
        raise PydanticCustomError("no_home", "must be a path; the home folder that ~ stands for is unknown") from None
    if "\0" in text:
        raise PydanticCustomError("null_byte", "must be a path, which holds no null byte")
    return text


def _no_booleans(value: object) -> object:
    if isinstance(value, list) and any(isinstance(name, bool) for name in value):
        raise PydanticCustomError("quotes", """must be text; put yes, no and the like in quotes: ["yes", "no"]""")
    return value


def _different_classes(names: list[str]) -> list[str]:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise PydanticCustomError("same_classes", "{text}", {"text": f"{twice[0]} is named twice"})
    return names


Name = Annotated[str, Field(max_length=200)]
Path = Annotated[str, Field(min_length=1, max_length=4000), AfterValidator(_usable_path)]
ClassName = Annotated[str, Field(min_length=1, max_length=200)]
Classes = Annotated[
    list[ClassName],
    Field(min_length=2, max_length=10_000),
    BeforeValidator(_no_booleans),
    AfterValidator(_different_classes),
]

# Bounds that no run has a reason to pass: sums of what they bound stay exact, and nothing overflows.
Positive = Annotated[int, Field(ge=1, le=10**9)]
Count = Annotated[int, Field(ge=0, le=10**9)]


class Group(BaseModel):
    """A group of settings: strict types, no unknown key, never changed after it was read.

    Fields in LEFT_OPEN that a config leaves out, or gives as null, are fitted to the image set when it is known.
    """

    LEFT_OPEN: ClassVar[frozenset[str]] = frozenset()

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    @property
    def left_open(self) -> frozenset[str]:
        """The fields that are still to be fitted to the image set."""
        return self.LEFT_OPEN - self.model_fields_set
