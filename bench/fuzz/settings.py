"""Settings that nobody would write: each must be accepted or refused by one line a mistake, in bounded time.

Configs and `key=value` words are made from the schema, with values of the wrong type, size and kind, raw YAML that is
meant to do harm, and good configs that were damaged. Accepted settings must read back the same, and what they need of
the machine must be a number, whatever the images are.
"""

import json
import math
import pathlib
import random
from collections.abc import Iterator
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from aal.config.errors import UserError
from aal.config.loading import CONFIGS, dump, load
from aal.config.registry import IMAGE_SETS, NETWORKS, SCHEDULES, STRATEGIES
from aal.config.settings import Settings
from aal.engines.resources import check_resources, parts_of
from bench.fuzz.case import Broken, Case
from bench.fuzz.values import NUMBERS, RAW, SHAPES, TEXTS

NUMBER = 10_000
SECONDS = 60.0  # the longest take one of CPU time, and five where torchvision is imported first; others may compute
NAMES = {"data_type": IMAGE_SETS, "query_strategy": STRATEGIES, "models": NETWORKS, "mode": SCHEDULES}
IMAGES = [(2, 8, 8, 1), (1797, 8, 8, 1), (60_000, 32, 32, 3), (10**6, 512, 512, 3), (10**9, 1, 1, 1)]  # (N, H, W, C)


def make(place: pathlib.Path, seed: int, number: int) -> Case:
    """Makes a config, words and a seed, to be read as the command does."""
    chance = random.Random(f"{seed} {number}")
    text, words, wanted_seed = _config(chance)
    config = place / "fuzz.yaml"
    config.write_bytes(text.encode(errors="surrogatepass"))

    def attempt() -> list[str]:
        settings = load(str(config), words, wanted_seed)
        _read_back(settings, config)
        return ["accepted" if _fits(settings, chance.choice(IMAGES)) else "accepted, but too large for this machine"]

    return Case(f"{text[:300]!r} {words!r:.300} {wanted_seed}", attempt)


def _read_back(settings: Settings, config: pathlib.Path) -> None:
    config.write_text(dump(settings), encoding="utf-8")
    try:
        again = load(str(config))
    except UserError as error:
        raise Broken(f"what is written is refused: {error}") from None
    if again != settings:
        raise Broken("what is written reads back as other settings")


def _fits(settings: Settings, shape: tuple[int, ...]) -> bool:
    """Estimates what a run needs; returns whether it is let begin here."""
    for part in parts_of(settings, shape):
        if not (part.number >= 1 and part.threads >= 1 and 0 < part.bytes < math.inf):
            raise Broken(f"estimated for images {shape}: {part!r}")
    try:
        check_resources(settings, shape)
    except UserError as error:
        for line in error.problems:
            if "inf" in line or "nan" in line or len(line) > 500:
                raise Broken(f"estimated for images {shape}: {line}") from None
        return False
    return True


def _config(chance: random.Random) -> tuple[str, list[str], int | None]:
    """Returns the text of a config, `key=value` words and the argument of --seed."""
    kind = chance.random()
    if kind < 0.15:
        return _damaged(chance), [], None
    tree = {"data_type": "digits", "models": "cnn", "initial_size": 40, "val_size": 20, "server_train_threshold": 5}
    if kind > 0.75:  # most of these are accepted
        return _dumped({**tree, **_some_settings(chance, Settings, most=6, harm=0.0)}), [], None
    changed = _some_settings(chance, Settings, most=6)
    text = _dumped({**tree, **changed} if chance.random() < 0.9 else changed)
    if kind < 0.35:
        key = chance.choice(list(Settings.model_fields))
        text += f"{key}: {chance.choice(RAW)}\n"
    words = []
    if kind > 0.5:
        for _ in range(chance.randint(1, 3)):
            key = chance.choice([*_keys(Settings, ""), "no.such", "", "a..b", "seed.x", "training", "costs"])
            value = chance.choice(RAW) if chance.random() < 0.4 else json.dumps(_value(chance, key))
            words.append(f"{key}={value}" if chance.random() < 0.95 else key + value)
    return text, words, chance.choice([None, None, None, 0, 5, -1, 2**31, 10**30])


def _damaged(chance: random.Random) -> str:
    """A good config with some characters changed, left out, or lines swapped."""
    text = list(chance.choice(sorted(CONFIGS.rglob("*.yaml"))).read_text(encoding="utf-8"))
    for _ in range(chance.randint(1, 8)):
        place = chance.randrange(len(text))
        changed = ["", "\n", ":", "-", "[", "{", '"', "\0", "\t", "é", "#", "&", "*", "9", text[place] * 3]
        text[place] = chance.choice(changed)
    return "".join(text)


def _some_settings(chance: random.Random, model: type[BaseModel], most: int, harm: float = 0.25) -> dict[str, Any]:
    """Some settings of a group; `harm` is the share of values that are of another kind."""
    keys = chance.sample(list(model.model_fields), k=chance.randint(0, min(most, len(model.model_fields))))
    found: dict[Any, Any] = {key: _value(chance, key, model.model_fields[key], harm) for key in keys}
    if chance.random() < 0.2 * harm:
        found[chance.choice([*TEXTS, 1, None, True, 1.5, "worker_nun"])] = _hostile(chance)
    return found


def _value(chance: random.Random, key: str, field: FieldInfo | None = None, harm: float = 0.25) -> Any:
    """A value for a setting, which may be right."""
    if chance.random() < harm:
        return _hostile(chance)
    kind = field.annotation if field else None
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return _some_settings(chance, kind, most=3, harm=harm)

    def odd(values: list[Any]) -> list[Any]:
        return [chance.choice(values)] if harm else []

    if registry := NAMES.get(key):
        return chance.choice([*registry.entries, *registry.entries, *odd(TEXTS)])
    for one in (kind, *get_args(kind)):
        if getattr(one, "__origin__", None) is Literal:
            return chance.choice(get_args(one))
        if one is bool:
            return chance.random() < 0.5
        if one is float:
            return chance.choice([0.1, 0.5, 1.0, 2.0, 30.0, 1e-3, *odd(NUMBERS)])
        if one is int:
            return chance.choice([1, 2, 3, 5, 10, 20, 100, *odd(NUMBERS)])
    if field and not harm:
        return field.get_default()
    return chance.choice([1, 2, 10, 0.5, "auto", "cpu", "paper", "measured", None, *(chance.choice(TEXTS),) * 3])


def _hostile(chance: random.Random) -> Any:
    return chance.choice([chance.choice(NUMBERS), chance.choice(TEXTS), chance.choice(SHAPES)])


def _keys(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _keys(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _dumped(tree: dict[Any, Any]) -> str:
    text: str = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    return text
