"""Settings that are right one by one and wrong together."""

from collections.abc import Iterator

from aal.config.registry import IMAGE_SETS
from aal.config.settings import SMALLEST_IMAGES, Settings


def misfit(name: str, side: int) -> str | None:
    """Returns what is wrong with giving a network images of `side` pixels; None when they fit."""
    if side >= SMALLEST_IMAGES[name]:
        return None
    fit = ", ".join(other for other, smallest in SMALLEST_IMAGES.items() if side >= smallest)
    hint = f"; these take them: {fit}" if fit else ""
    return f"{name} needs images of at least {SMALLEST_IMAGES[name]} pixels a side, not {side}{hint}"


def contradictions(s: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
    """Finds settings that are right one by one and wrong together; yields the keys concerned and the problem."""
    if s.assignment_type == "DA" and s.query_strategy is None:
        yield (
            ("query_strategy", "assignment_type"),
            "assignment_type DA needs one: random, entropy, least_confidence or margin",
        )
    if s.assignment_type == "RA" and s.query_strategy is not None:
        yield (
            ("query_strategy", "assignment_type"),
            f"assignment_type RA draws the strategies itself; leave {s.query_strategy} out or use DA",
        )
    sizes = ("worker_num", "worker_query_num", "query_batch")
    if s.server_train_threshold > s.budget:
        yield (
            ("server_train_threshold", *sizes),
            f"{s.server_train_threshold} is more than the budget "
            f"worker_num * worker_query_num * query_batch = {s.budget}",
        )
    if s.query_pool_size is not None and s.query_pool_size < s.query_batch:
        yield (
            ("query_pool_size", "query_batch"),
            f"{s.query_pool_size} cannot hold one batch of {s.query_batch}",
        )
    if s.query_pool_size is not None and s.mode == "sync" and s.query_pool_size < s.server_train_threshold:
        yield (
            ("query_pool_size", "mode", "server_train_threshold"),
            f"{s.query_pool_size} cannot hold a round of mode sync, {s.server_train_threshold}",
        )
    if s.annotators.lease_s <= s.annotators.seconds_per_label:
        yield (
            ("annotators.lease_s", "annotators"),
            f"{s.annotators.lease_s:g} s run out before a label is given, which takes "
            f"{s.annotators.seconds_per_label:g} s in the mean",
        )
    yield from _of_images(s)
    if s.engine == "local":
        if s.compute == "none":
            yield ("compute", "engine"), "none is for engine simulated, whose clock is virtual"
        if s.costs.measured:
            yield ("costs", "engine"), "are for engine simulated, whose clock is virtual"
    elif s.devices.worker_processes is not None:
        yield ("devices.worker_processes", "engine"), "is for engine local; a simulated run is one process"
    if s.examples is not None and s.compute == "full":
        yield ("examples", "compute"), "imagines a set, which only compute none can do"
    if s.costs.measured and s.examples is not None:
        yield ("costs", "examples"), "measured needs images, and examples imagines them"


def _of_images(s: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
    """What does not go with the image set, as far as that is known before it is prepared."""
    if problem := IMAGE_SETS.problem(s.data_type):
        yield ("data_type",), problem
        return
    facts = IMAGE_SETS.facts(s.data_type)
    if s.image_size is not None and "image_size" in facts:
        yield ("image_size", "data_type"), f"{s.data_type} has a size of its own, {facts['image_size']}; leave it out"
    if s.test_share is not None and ("own_test" in facts or "test_share" in facts):
        yield ("test_share", "data_type"), f"{s.data_type} has a test set of its own; leave it out"
    side: int | None = facts.get("image_size") or s.image_size or facts.get("default_image_size")
    for name in dict.fromkeys(s.models):
        if side and (problem := misfit(name, side)):
            yield ("models", "data_type", "image_size"), problem
