"""The settings of the runs that are measured, read from `settings.yaml`."""

import pathlib

import yaml

from aal.config.loading import override, resolve
from aal.config.settings import Settings

FOLDER = pathlib.Path(__file__).parent
KINDS: dict[str, str] = yaml.safe_load((FOLDER / "settings.yaml").read_text(encoding="utf-8"))
WORDS = {kind: text.split() for kind, text in KINDS.items()}


def settings_of(kind: str, **changes: object) -> Settings:
    """Returns the settings of a kind of run, with changes; a key `training__epochs` stands for `training.epochs`."""
    more = [f"{key.replace('__', '.')}={'null' if value is None else value}" for key, value in changes.items()]
    return resolve(override({}, [*WORDS[kind], *more]), "bench")
