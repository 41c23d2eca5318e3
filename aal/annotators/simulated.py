"""Simulated people, who know the true labels."""

from aal.annotators.label_source import LabellingTask, PacedLabelSource
from aal.config.errors import UserError
from aal.config.registry import LABEL_SOURCES
from aal.config.seeding import log_normal, uniforms


@LABEL_SOURCES.register("simulated", repeats=True, sees_images=False)
class Simulated(PacedLabelSource):
    """Annotators whose time and label for an example depend on the seed, the annotator and the example alone.

    So they are the same when a run is resumed, and in whatever order queries come. The time is log-normal with the mean
    and the relative standard deviation of the settings; the label is the true one, or by the error rate one of the
    others, all alike.

    Raises:
        UserError: the true label of an example is unknown.
    """

    def __init__(self, task: LabellingTask) -> None:
        super().__init__(task)
        self._labels, self._classes = task.labels, len(task.classes)

    def respond(self, annotator: int, example: int) -> tuple[float, int]:
        """Returns the seconds that an annotator takes for an example, and the label."""
        settings = self.task.settings
        pace, error, other = uniforms(self.task.seed, "annotator", annotator, example)
        label = int(self._labels[example])
        if label < 0:
            raise UserError(
                f"annotators.source: simulated annotators give true labels, and that of image {example} is unknown; "
                "name a label source of your own"
            )
        if self._classes > 1 and error < settings.error_rate:
            label = (label + 1 + int(other * (self._classes - 1))) % self._classes
        return settings.seconds_per_label * log_normal(settings.relative_std, pace), label
