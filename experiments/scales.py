"""The sizes of a study, as its `scales.yaml` has them, and the part of an image set that small ones use."""

import pathlib
from collections.abc import Callable
from typing import TypeVar

import yaml

SUBSET = "aal.app.experiments.subset:load"

Scale = TypeVar("Scale")


def read_scales(study: pathlib.Path, scale: Callable[..., Scale]) -> dict[str, Scale]:
    """Returns the sizes by name.

    Args:
        study: folder of the study.
        scale: what makes a size of the entries of one.
    """
    entries = yaml.safe_load((study / "scales.yaml").read_text(encoding="utf-8"))
    return {name: scale(**entry) for name, entry in entries.items()}
