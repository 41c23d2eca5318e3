"""What the groups of settings are built from: their base, and types of numbers."""

from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

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
