"""From a config file and the command line to settings; every mistake is reported at once, a line each."""

import copy
import difflib
import os
import pathlib
import re
from collections.abc import Iterable
from typing import Any

import yaml
from pydantic import ValidationError

from aal.config.completion import PRESET, completed
from aal.config.contradictions import contradictions
from aal.config.error_lines import line_of, shortened
from aal.config.errors import UserError
from aal.config.interrupts import deferred_interrupt
from aal.config.settings import Settings
from aal.config.yaml_text import LONGEST_TEXT, parse

FROM_TORCHVISION = re.compile(r"^(torchvision:\w+|\w+_Weights\.\w+)$")  # what computes `features`, and no file
CONFIGS = pathlib.Path(__file__).resolve().parents[1] / "app" / "configs"  # a part of the installed package


def find_config(name: str) -> pathlib.Path:
    """Returns the path of a config: as given, then under `configs/`; `.yaml` may be left out.

    Raises:
        UserError: there is no such file.
    """
    for folder in (pathlib.Path(), CONFIGS):
        for ending in ("", ".yaml"):
            path = folder / (name + ending)
            if os.path.isfile(path):  # False, where Path.is_file raises, for names that no file can have
                return path
    if os.path.exists(name):
        raise UserError(f"--config {name}: is no file")
    known = sorted(str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.yaml"))
    close = difflib.get_close_matches(shortened(name), known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(known)}"
    raise UserError(f"--config {shortened(name)}: no such file here or under configs/; {hint}")


def read_config(path: pathlib.Path) -> dict[str, Any]:
    """Returns the tree of a YAML file.

    Raises:
        UserError: the file cannot be read, does not parse, or holds no mapping.
    """
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(LONGEST_TEXT + 1)  # no more, however large the file is
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not a text file"
        raise UserError(f"{path}: {reason}") from None
    tree = parse(text, str(path))
    if not isinstance(tree, dict):
        raise UserError(f"{path}: must hold `key: value` lines")
    return tree


def override(tree: dict[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """Returns a copy of `tree` with each `key=value` set; dots reach into groups, values are YAML.

    Raises:
        UserError: an argument is not of that form.
    """
    result = {key: dict(value) if isinstance(value, dict) else value for key, value in tree.items()}
    problems, assignments = [], list(assignments)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        where = shortened(assignment)
        if not equals or not re.fullmatch(r"\w+(\.\w+)*", key):
            problems.append(f"{where}: is not of the form key=value")
            continue
        try:
            value = parse(text, where)
        except UserError as error:
            problems.extend(error.problems)
            continue
        target = result
        *groups, last = key.split(".")
        for group in groups:
            inner = target.get(group)
            named = {PRESET: inner} if group == "costs" and isinstance(inner, str) else {}
            target[group] = dict(inner) if isinstance(inner, dict) else named
            target = target[group]
        target[last] = value
    if problems:
        raise UserError(*problems)
    for key in ("mode", "trainer", "query_strategy", "data_type"):
        options = f"{key}_options" if key != "data_type" else "data_options"
        given = {name.partition("=")[0].partition(".")[0] for name in assignments}
        if key in given and options not in given and result.get(key) != tree.get(key):
            result.pop(options, None)  # they are those of the choice that was replaced
    return result


def keys_of(assignments: Iterable[str]) -> list[str]:
    """Returns the keys that overrides change."""
    return [assignment.partition("=")[0] for assignment in assignments]


@deferred_interrupt()
def resolve(
    tree: dict[str, Any], where: str, changed: Iterable[str] = (), changed_by: str = "command line"
) -> Settings:
    """Returns the settings that a tree stands for, with the recipe filled in.

    Args:
        tree: as read from YAML, overrides included.
        where: the file that the messages name.
        changed: the keys, with dots, that come from elsewhere.
        changed_by: what the messages name for these.

    Raises:
        UserError: everything that is wrong, a line each: unknown keys, types, ranges, contradictions.
    """
    tree = completed(tree, where)
    changed = set(changed)
    problems: list[tuple[str, str]] = []
    bad: set[str] = set()
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        problems = list(dict.fromkeys(line_of(detail) for detail in error.errors()))
        keys = {key for key, _ in problems}
        bad = keys | {key.partition(".")[0] for key in keys}
        settings = _sound(tree, keys, bad, where)  # to find contradictions
    problems += [(keys[0], text) for keys, text in contradictions(settings) if not bad & set(keys)]
    if problems:
        raise UserError(
            *(f"{changed_by if _is_among(key, changed) else where}: {key}: {text}" for key, text in problems)
        )
    return settings


def _sound(tree: dict[str, Any], keys: set[str], bad: set[str], where: str) -> Settings:
    """Returns the settings of a tree without some keys, or, where a group is not right without them, without `bad`."""
    rest = copy.deepcopy(tree)
    for *groups, name in (key.split(".") for key in keys):
        group: Any = rest
        for outer in groups:
            group = group.get(outer) if isinstance(group, dict) else None
        if isinstance(group, dict):
            group.pop(name, None)
    try:
        return Settings.model_validate(completed({"data_type": "folder", **rest}, where))
    except (ValidationError, UserError):
        rest = {key: value for key, value in tree.items() if key in Settings.model_fields and key not in bad}
        return Settings.model_validate(completed({"data_type": "folder", **rest}, where))


def _is_among(key: str, changed: Iterable[str]) -> bool:
    """Whether a key is one that was changed, is in a group that was, or is the group of one."""
    return any(f"{key}.".startswith(f"{one}.") or one.startswith(f"{key}.") for one in changed)


def load(name: str, assignments: Iterable[str] = (), seed: int | None = None) -> Settings:
    """Returns the settings of a config with overrides.

    Args:
        name: the config's path or its name under `configs/`.
        assignments: `key=value` overrides.
        seed: overrides the config's seed.

    Raises:
        UserError: everything that is wrong with them, a line each.
    """
    path = find_config(name)
    assignments = [*assignments, *([] if seed is None else [f"seed={seed}"])]
    tree = override(read_config(path), assignments)
    tree["name"] = tree.get("name") or name_of(path)
    return located(resolve(tree, str(path), changed=keys_of(assignments)))


def located(settings: Settings) -> Settings:
    """Returns settings whose folders of images are absolute, so that the run's config means the same everywhere."""
    named = {key: getattr(settings, key) for key in ("data_dir", "prepared_dir")}
    if settings.features is not None and not FROM_TORCHVISION.match(settings.features):
        named["features"] = settings.features
    whole = {key: os.path.abspath(os.path.expanduser(folder)) for key, folder in named.items() if folder is not None}
    return settings.model_copy(update=whole)


def name_of(path: pathlib.Path) -> str:
    """Returns the name of the runs of a config that gives none: that of its file, as far as a name may have it."""
    return re.sub(r"[^\w.-]", "-", path.stem).lstrip(".-") or "run"


def dump(settings: Settings) -> str:
    """Returns the resolved settings as YAML that `load` reads back to the same settings."""
    return yaml.safe_dump(settings.tree(), sort_keys=False, allow_unicode=True)
