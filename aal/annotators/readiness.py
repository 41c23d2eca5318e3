"""Whether those who are to answer can, found out before anything starts."""

from collections.abc import Sequence

import numpy as np

from aal.annotators.label_source import LabellingTask
from aal.annotators.recorded import answers_of
from aal.config.errors import UserError
from aal.config.settings import Settings

INSTEAD = "name a label source of your own, or let people label (annotators.number=0 people.supervisors=[me])"


def check_label_source(
    settings: Settings,
    labels: np.ndarray,
    shards: Sequence[np.ndarray],
    classes: Sequence[str],
    paths: Sequence[str | None] | None,
) -> str | None:
    """Returns what a user should know of the label source; None where there is nothing.

    Args:
        settings: of the run.
        labels: (n,) true label of every example, -1 where it is unknown.
        shards: ids that may be asked for.
        classes: names of the classes.
        paths: source file of every example; None where there are none.

    Raises:
        UserError: simulated annotators would have to know labels that are unknown, or recorded answers cannot be read.
    """
    people, pool = settings.annotators, np.concatenate(list(shards))
    unknown = int((labels[pool] < 0).sum())
    if unknown and people.source == "simulated" and people.number:
        text = f"simulated annotators give true labels, and those of {unknown} images are unknown"
        raise UserError(f"annotators.source: {text}; {INSTEAD}")
    if people.source != "recorded":
        return None
    answers = answers_of(LabellingTask(people, settings.seed, labels, classes, paths=paths))
    numbers = np.array([len(answers.of(example)) for example in pool.tolist()])
    none, fewer = int((numbers == 0).sum()), int(((numbers > 0) & (numbers < people.answers_per_item)).sum())
    if none == len(pool):
        raise UserError(
            f"annotators.answers: {people.answers} has no answer for any of the {len(pool):,} images to label"
        )
    found = f"{answers.number:,} recorded answers of {len(answers.names):,} people"
    if none or fewer:
        found += (
            f"; of {len(pool):,} images, {none:,} have none, so that they get no label, and {fewer:,} have fewer than "
            f"{people.answers_per_item}, which then decide"
        )
    return found
