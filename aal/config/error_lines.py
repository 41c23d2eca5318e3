"""One plain line for each thing that is wrong with a setting."""

import difflib
from typing import Any, get_args

import yaml

from aal.config.presets import PAPER_COSTS
from aal.config.settings import Settings

TEMPLATES = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "list_type": "must be a list",
    "literal_error": "must be {expected}",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "too_short": "must hold at least {min_length}",
    "too_long": "must hold at most {max_length}",
    "string_too_short": "must not be empty",
    "string_too_long": "must be at most {max_length} characters long",
    "dict_type": "must hold `key: value` lines",
    "model_type": "must hold `key: value` lines",
    "model_attributes_type": "must hold `key: value` lines",
    "invalid_key": "must be text, as every key",
}
LONGEST = 60  # characters of a key or a value that a message repeats


def line_of(detail: Any) -> tuple[str, str]:
    """Returns the setting, with dots, and what is wrong with it.

    Args:
        detail: one of the `errors()` of pydantic's ValidationError.
    """
    location = [str(part) for part in detail["loc"] if not str(part).startswith(("function-", "constrained-", "[key]"))]
    names = [part for part in location if not part.isdigit()]
    key = shortened(".".join(names))
    if detail["type"] == "extra_forbidden":
        close = difflib.get_close_matches(names[-1], _known_keys(names[:-1]), n=1, cutoff=0.5) if names else []
        hint = f"did you mean {close[0]}?" if close else "--help lists all settings"
        return key, f"no such setting; {hint}"
    if detail["type"] == "missing":
        return key, "must be given"
    if key == "costs":
        named = f"paper (for {', '.join(PAPER_COSTS)}), measured"
        text = f"must be {named} or hold `key: value` lines"
    elif detail["type"] == "string_pattern_mismatch":
        patterns = {"name": "letters, digits, dots and dashes", "people": "a name: letters, digits, spaces and . @ ' -"}
        text = f"must be {patterns.get(names[0], 'auto, cpu, cuda or cuda:i')}"
    else:
        text = TEMPLATES.get(detail["type"], detail["msg"]).format(**detail.get("ctx", {}))
    return key, f"{text}, not {_shown(detail['input'])}"


def _known_keys(group: list[str]) -> list[str]:
    model: Any = Settings
    for name in group:
        model = _group_in(model.model_fields[name].annotation)
    return list(model.model_fields)


def _group_in(annotation: Any) -> Any:
    """Returns the group of settings that an annotation is, or is a list of."""
    while not hasattr(annotation, "model_fields"):
        annotation = get_args(annotation)[0]
    return annotation


def _shown(value: object) -> str:
    """A value as it stands in YAML, on one line."""
    try:
        text = yaml.safe_dump(value, default_flow_style=True, width=float("inf")).strip().removesuffix("...").strip()
    except (yaml.YAMLError, RecursionError, ValueError):
        text = type(value).__name__
    return shortened(text) or "nothing"


def shortened(text: str) -> str:
    """Returns text as far as a message repeats it, on one line."""
    text = " ".join(text[: 10 * LONGEST].split())
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
