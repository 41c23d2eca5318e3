"""What a tree of settings stands for: names of earlier versions, recipes and costs by name, nulls to be fitted."""

import logging
from typing import Any

from aal.config.presets import PAPER_COSTS, RECIPES
from aal.config.registry import IMAGE_SETS, SCHEDULES
from aal.config.settings import Settings, TrainingSettings

# Names that settings had in earlier versions; configs may still use them.
RENAMED = {
    ("training", "shift"): "crop_padding",
    ("annotators", "spread"): "relative_std",
    ("costs", "spread"): "relative_std",
}
PRESET = "preset"  # beside single costs, the name of the group that they change

log = logging.getLogger("aal")


def completed(tree: dict[str, Any], where: str) -> dict[str, Any]:
    """Returns a tree in which all is said that it stands for.

    Args:
        tree: as read from YAML, overrides included; may hold anything.
        where: the file that a warning names.
    """
    return _left_open(_federated(_with_costs(_with_recipe(_with_new_names(tree, where)))))


def _with_new_names(tree: dict[str, Any], where: str) -> dict[str, Any]:
    """Renames the settings that have another name now, with a line of warning for each."""
    renamed = dict(tree)
    for (group, old), new in RENAMED.items():
        given = renamed.get(group)
        if isinstance(given, dict) and old in given and new not in given:
            log.warning("%s: %s.%s is called %s.%s now", where, group, old, group, new)
            renamed[group] = {new if key == old else key: value for key, value in given.items()}
    return renamed


def _with_recipe(tree: dict[str, Any]) -> dict[str, Any]:
    changed = tree.get("training")
    if changed is not None and not isinstance(changed, dict):
        return tree
    recipe = tree.get("recipe", "modern")
    base = RECIPES.get(recipe if isinstance(recipe, str) else "", RECIPES["modern"])
    return {**tree, "training": {**base, **(changed or {})}}


def _federated(tree: dict[str, Any]) -> dict[str, Any]:
    """Fills in what mode federated has: a group of settings, a trainer of its own, no images that choose an epoch."""
    if SCHEDULES.canonical(tree.get("mode")) != "federated":
        return tree
    own = {"trainer": "train_local", "val_size": 0, "federated": {}}
    return tree | {key: value for key, value in own.items() if tree.get(key) is None}


def _left_open(tree: dict[str, Any]) -> dict[str, Any]:
    """Leaves out what is null and to be fitted to the image set."""
    kept = {key: value for key, value in tree.items() if value is not None or key not in Settings.LEFT_OPEN}
    if isinstance(training := kept.get("training"), dict):
        open_keys = TrainingSettings.LEFT_OPEN
        kept["training"] = {key: value for key, value in training.items() if value is not None or key not in open_keys}
    return kept


def _with_costs(tree: dict[str, Any]) -> dict[str, Any]:
    """Fills in the costs that a name stands for; single ones beside it (`costs.relative_std=0.2`) change it."""
    given = tree.get("costs")
    changed = dict(given) if isinstance(given, dict) else {}
    name = changed.pop(PRESET, given)
    preset = PAPER_COSTS.get(str(IMAGE_SETS.canonical(tree.get("data_type"))))
    if name == "measured":
        return {**tree, "costs": {"measured": True, **changed}}
    if name == "paper" and preset is not None:
        return {**tree, "costs": {"per_image_scored": 0.0, **preset, **changed}}
    return {**tree, "costs": name} if isinstance(name, str) else tree
