"""Settings that are right one by one and wrong together."""

import importlib.util
import inspect
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from aal.config.errors import UserError
from aal.config.ray import ray_problems
from aal.config.registry import (
    AGGREGATIONS,
    IMAGE_SETS,
    LABEL_SOURCES,
    NETWORKS,
    SCHEDULES,
    STRATEGIES,
    TRAINERS,
    Registry,
    check_options,
)
from aal.config.settings import Settings

LONGEST_TRAINING_S = 1e9  # of virtual time: 30 years


def misfit(name: str, side: int) -> str | None:
    """Returns what is wrong with giving a network images of `side` pixels; None when they fit."""
    smallest = NETWORKS.facts(name).get("smallest_image", 1)
    if side >= smallest:
        return None
    facts = {other: NETWORKS.facts(other) for other in NETWORKS.entries}
    on_images = [other for other in facts if facts[other].get("learns_on") != "features"]
    fit = ", ".join(other for other in on_images if side >= facts[other].get("smallest_image", 1))
    hint = f"; these take them: {fit}" if fit else ""
    return f"{name} needs images of at least {smallest} pixels a side, not {side}{hint}"


def known_side(s: Settings) -> int | None:
    """Returns the pixels a side that the images will have; None where it depends on the images."""
    facts = IMAGE_SETS.facts(s.data_type)
    side: int | None = facts.get("image_size") or s.image_size or facts.get("default_image_size")
    return side


def learns_on_features(s: Settings) -> bool:
    """Whether the networks of a run learn on its features, so that no image is opened."""
    return any(NETWORKS.facts(name).get("learns_on") == "features" for name in {one.model for one in s.networks})


def crop_problem(s: Settings, side: int) -> str | None:
    """Returns what is wrong with random crops of images of `side` pixels: a reflection reaches no further than that."""
    if learns_on_features(s) or s.training.crop_padding < side:
        return None
    return f"{s.training.crop_padding} must be less than the {side} pixels a side that the images have"


def strategy_problems(s: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
    """Finds what is wrong with the strategy and its options; a user's own strategy is imported for that."""
    name = s.query_strategy
    if name is None:
        if s.query_strategy_options:
            yield ("query_strategy_options",), "are for a query_strategy, under assignment_type DA"
        return
    if problem := STRATEGIES.problem(name):
        yield ("query_strategy",), problem
        return
    if STRATEGIES.facts(name).get("local_and_global") and s.mode != "federated":
        yield ("query_strategy", "mode"), f"{name} compares a client's model with the server's; it needs mode federated"
    package = STRATEGIES.facts(name).get("package")
    if package and importlib.util.find_spec(package) is None:
        yield ("query_strategy",), f"{name} needs {package}: pip install {package}"
    try:
        if STRATEGIES.is_users_own(name) and not callable(getattr(STRATEGIES.load(name), "select", None)):
            yield ("query_strategy",), f"{name} has no method select(pool, count, rng); see docs/extending.md"
        elif STRATEGIES.is_users_own(name) or s.query_strategy_options:
            STRATEGIES.checked_options(name, s.query_strategy_options, given=())
    except UserError as error:
        yield from _named(error, "query_strategy")


def waiting_problems(s: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
    """Finds strategies that do not look at what waits, where they should count it."""
    name = s.query_strategy
    if not s.count_waiting or (
        name and (STRATEGIES.is_users_own(name) or STRATEGIES.facts(name).get("counts_waiting"))
    ):
        return
    counting = [one for one, entry in STRATEGIES.entries.items() if entry.facts.get("counts_waiting")]
    text = f"{name or 'an uncertainty strategy'} does not look at other queries; these do: {', '.join(counting)}"
    yield ("count_waiting", "query_strategy"), text


def dropout_problems(s: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
    """Finds built-in networks without the dropout that a strategy needs; others are known when they are there."""
    if s.query_strategy is None or not STRATEGIES.facts(s.query_strategy).get("needs_dropout"):
        return
    with_dropout = ", ".join(name for name in NETWORKS.entries if NETWORKS.facts(name).get("dropout"))
    for name in dict.fromkeys(network.model for network in s.networks):
        if name in NETWORKS.entries and not NETWORKS.facts(name).get("dropout"):
            text = f"{s.query_strategy} draws networks by dropout, and {name} has none; these have: {with_dropout}"
            yield ("query_strategy", "models"), text


def network_problems(s: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
    """Finds what can be known to be wrong with the networks before PyTorch is imported."""
    side, where = known_side(s), "targets" if s.targets else "models"
    for name in dict.fromkeys(network.model for network in s.networks):
        if problem := NETWORKS.problem(name):
            yield (where,), problem
        elif side and (problem := misfit(name, side)):
            yield (where, "data_type", "image_size"), problem
        elif NETWORKS.facts(name).get("learns_on") == "features" and s.features is None:
            yield (where, "features"), f"{name} learns on features; name an .npy file or what computes them"
        elif learns_on_features(s) and NETWORKS.facts(name).get("learns_on") != "features":
            yield (where,), f"{name} learns on images, and others of this run on features; use either kind"
        elif s.freeze and s.pretrained is None and not NETWORKS.is_users_own(name):
            yield ("freeze", "pretrained", where), f"needs pretrained, for {name} starts from random weights"
    if s.targets and s.model_options:
        yield ("model_options", "targets"), "are for models; give each of the targets its own options"


def snapshot_problems(s: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
    """Finds too few epochs for the votes of snapshots."""
    epochs, keys = s.training.epochs, ("snapshots", "training", "query_strategy")
    if s.snapshots is not None and s.snapshots > epochs:
        yield keys, f"{s.snapshots} are more than the {epochs} epochs of a training"
    elif s.needs_votes and s.votes_kept < 2:
        yield (
            keys,
            f"{s.query_strategy} needs votes of two epochs or more; half of training.epochs {epochs} are too few",
        )


def feature_problems(s: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
    """Finds settings that need features where there are none, and features where there are no images."""
    if s.features is None:
        for key in ("embeddings_from", "initial_strategy"):
            if getattr(s, key) not in ("model", "random"):
                yield (key, "features"), f"{getattr(s, key)} needs features; name an .npy file or what computes them"
    elif s.features in NETWORKS.entries:
        yield (
            ("features",),
            f"{s.features} comes without weights; name a model file or weights of torchvision",
        )
    elif s.examples is not None:
        yield ("features", "examples"), "are of real images, and examples imagines some"


def contradictions(s: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
    """Finds settings that are right one by one and wrong together; yields the keys concerned and the problem."""
    if s.assignment_type == "DA" and s.query_strategy is None:
        yield ("query_strategy", "assignment_type"), f"assignment_type DA needs one: {STRATEGIES.choices()}"
    if s.assignment_type == "RA" and s.query_strategy is not None:
        yield (
            ("query_strategy", "assignment_type"),
            f"assignment_type RA draws the strategies itself; leave {s.query_strategy} out or use DA",
        )
    sizes = ("worker_num", "worker_query_num", "query_batch")
    waits_for_threshold = s.federated is None and "server_train_threshold" not in s.left_open
    if s.server_train_threshold > s.budget and waits_for_threshold:
        yield (
            ("server_train_threshold", *sizes),
            f"{s.server_train_threshold} is more than the budget "
            f"worker_num * worker_query_num * query_batch = {s.budget}",
        )
    if s.annotators.lease_s <= s.annotators.seconds_per_label:
        yield (
            ("annotators.lease_s", "annotators"),
            f"{s.annotators.lease_s:g} s run out before a label is given, which takes "
            f"{s.annotators.seconds_per_label:g} s in the mean",
        )
    first = s.costs.per_image_trained * s.training.epochs * s.initial_size
    if s.engine == "simulated" and first > LONGEST_TRAINING_S:
        yield ("costs", "training"), f"the first training would take {first:.1g} virtual seconds; make them smaller"
    if (s.training.schedule == "multi_step") != bool(s.training.milestones):
        yield ("training.milestones", "training.schedule"), "go together: multi_step lowers the rate after each of them"
    yield from image_problems(s)
    yield from strategy_problems(s)
    yield from dropout_problems(s)
    yield from waiting_problems(s)
    yield from network_problems(s)
    yield from snapshot_problems(s)
    yield from feature_problems(s)
    if s.engine != "simulated":
        if s.compute == "none":
            yield ("compute", "engine"), "none is for engine simulated, whose clock is virtual"
        if s.costs.measured:
            yield ("costs", "engine"), "are for engine simulated, whose clock is virtual"
    elif s.devices.worker_processes is not None:
        yield ("devices.worker_processes", "engine"), "is not for a simulated run, which is one process; use null"
    if s.examples is not None and s.compute == "full":
        yield ("examples", "compute"), "imagines a set, which only compute none can do"
    if s.costs.measured and s.initial_size == 0:
        yield ("costs", "initial_size"), "measured trains on the initial images, and initial_size is 0"
    if s.costs.measured and s.examples is not None:
        yield ("costs", "examples"), "measured needs images, and examples imagines them"
    yield from schedule_problems(s)
    yield from trainer_problems(s)
    yield from label_source_problems(s)
    yield from people_problems(s)
    yield from answer_problems(s)
    yield from ray_problems(s)


def schedule_problems(s: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
    """Finds what is wrong with the schedule and its options, and what it finds wrong with the settings."""
    problems = list(_of_choice(SCHEDULES, s.mode, s.mode_options, given=("settings", "pools")))
    yield from problems
    if problems:
        return
    found = getattr(SCHEDULES.load(s.mode), "contradictions", None)
    if found is None:
        yield ("mode",), f"{s.mode} is no schedule, which derives from aal.coordination.schedules.base.Schedule"
    else:
        yield from found(s)


def trainer_problems(s: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
    """Finds what is wrong with the trainer and its options."""
    return _of_choice(TRAINERS, s.trainer, s.trainer_options, given=("model", "task"))


def _of_choice(
    registry: Registry, name: str, options: Mapping[str, Any], given: Collection[str]
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Finds what is wrong with a name and its options; an object is imported only where that is needed."""
    if problem := registry.problem(name):
        yield (registry.setting,), problem
        return
    if not registry.is_users_own(name) and not options:
        return
    try:
        registry.checked_options(name, options, given)
    except UserError as error:
        yield from _named(error, registry.setting)


def _named(error: UserError, setting: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Takes the lines `key: text` of an error apart; they concern the setting that names the object, too."""
    for line in error.problems:
        key, _, text = line.partition(": ")
        yield (key, setting), text


def label_source_problems(s: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
    """Finds what is wrong with the label source and its options."""
    people = s.annotators
    if problem := LABEL_SOURCES.problem(people.source):
        yield ("annotators.source", "annotators"), problem
        return
    if people.source == "simulated" and not people.options:  # needs no import
        return
    try:
        source = LABEL_SOURCES.load(people.source)
        check_options(source, people.options, ("task",), "annotators.options")
        if not callable(getattr(source, "annotate", None)) or "task" not in inspect.signature(source).parameters:
            text = f"{people.source} must be a class with a parameter `task` and a method annotate(client, clock)"
            yield ("annotators.source", "annotators"), f"{text}; see docs/extending.md"
    except UserError as error:
        yield from _named(error, "annotators")


def people_problems(s: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
    """Finds what is wrong with people in a browser, and a run in which nobody labels."""
    people = s.people
    if not people.label:
        if s.annotators.number == 0:
            text = "0 label nothing; name people who label in a browser, as people.supervisors=[me]"
            yield ("annotators.number", "annotators", "people"), text
        return
    names = [*people.supervisors, *people.annotators]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        yield ("people.annotators", "people"), f"{twice[0]} is named twice"
    if s.annotators.number and s.annotators.source != "simulated":
        text = f"0 beside people, not {s.annotators.number}: they label beside simulated annotators, or alone"
        yield ("annotators.number", "annotators", "people"), text
    if s.federated is not None:
        yield (
            ("people.supervisors", "people", "mode"),
            "people would see the images of every client; not in a federation",
        )
    if s.engine == "simulated":
        yield ("people.supervisors", "people", "engine"), "people label in real time: engine local or ray"
    if (people.tls_certificate is None) != (people.tls_key is None):
        yield ("people.tls_certificate", "people"), "goes with people.tls_key; give both or neither"
    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        text = f"a page needs {' and '.join(missing)}: pip install 'aal-labelling[web]', or pip install .[web] here"
        yield ("people.supervisors", "people"), text


def answer_problems(s: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
    """Finds more answers than there are people, and checks where no label is known."""
    people = s.annotators
    most = people.answers_at_most or people.answers_per_item
    if problem := AGGREGATIONS.problem(people.aggregation):
        yield ("annotators.aggregation", "annotators"), problem
    if most < people.answers_per_item:
        text = f"{most} are fewer than answers_per_item, {people.answers_per_item}"
        yield ("annotators.answers_at_most", "annotators"), text
    asked = most + people.cannot_tell - 1
    if 0 < people.number < asked and not (s.people.label or LABEL_SOURCES.facts(people.source).get("is_open")):
        text = f"{people.number} are too few: an image may have to be shown to {asked} different ones"
        yield ("annotators.number", "annotators"), text
    if (people.answers is None) == (people.source == "recorded"):
        yield (
            ("annotators.answers", "annotators.source", "annotators"),
            "goes with source recorded, and that with answers",
        )
    if people.gold_share and not {"initial_size", "val_size"} & s.left_open and not s.initial_size + s.val_size:
        yield ("annotators.gold_share", "initial_size", "val_size"), "needs known images, initial or validation ones"


def image_problems(s: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
    """Finds what does not go with the image set, as far as that is known before it is prepared.

    A user's own function is imported for that.
    """
    if problem := IMAGE_SETS.problem(s.data_type):
        yield ("data_type",), problem
        return
    if (side := known_side(s)) and (problem := crop_problem(s, side)):
        yield ("training.crop_padding", "training"), problem
    facts = IMAGE_SETS.facts(s.data_type)
    if s.classes is not None and s.data_type != "folder":
        yield ("classes", "data_type"), f"are for data_type folder; {s.data_type} knows its own"
    if s.image_size is not None and "image_size" in facts:
        yield ("image_size", "data_type"), f"{s.data_type} has a size of its own, {facts['image_size']}; leave it out"
    if s.test_share is not None and ("own_test" in facts or "test_share" in facts):
        yield ("test_share", "data_type"), f"{s.data_type} has a test set of its own; leave it out"
    if IMAGE_SETS.is_users_own(s.data_type) or (facts and s.data_options):
        try:
            IMAGE_SETS.checked_options(s.data_type, s.data_options, given=("settings", "data_dir"))
        except UserError as error:
            yield from _named(error, "data_type")
