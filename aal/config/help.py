"""The list of all settings that `--help` prints."""

from collections.abc import Iterator
from typing import get_args

import yaml
from pydantic import BaseModel

from aal.config.presets import RECIPES
from aal.config.settings import Settings


def settings_help() -> str:
    """Returns a line for every setting, with its default, and one with its meaning."""
    return "\n".join(["settings (key: default, meaning):", *_described(Settings, "")])


def _described(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        kinds = (field.annotation, *get_args(field.annotation))  # a group, or one that may be null
        groups = [one for one in kinds if isinstance(one, type) and issubclass(one, BaseModel)]
        if groups:
            yield from _described(groups[0], f"{prefix}{name}.")
            continue
        if prefix == "training.":
            default = ", ".join(f"{recipe} {RECIPES[recipe].get(name, 'null')}" for recipe in RECIPES)
        elif name in Settings.LEFT_OPEN:
            default = f"null, at most {field.default}"
        elif field.is_required():
            default = "must be given"
        else:
            default = yaml.safe_dump(field.default, default_flow_style=True).removesuffix("...\n").strip()
        yield f"  {prefix}{name}: {default}\n      {field.description}"
