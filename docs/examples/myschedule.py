"""A schedule of one's own: train when the number of labels has doubled, so that long trainings come rarely.

aal run --config small.yaml mode=myschedule:Doubling max_staleness=null compute=none
"""

from collections.abc import Iterator

from aal.config.settings import Settings
from aal.coordination.schedules.asynchronous import Asynchronous


class Doubling(Asynchronous):
    """As `async`, but a training also waits until L is twice as large as at the training before.

    `server_train_threshold` stays the least growth between two trainings. `max_staleness` counts rounds of the
    threshold, of which most have no training here, so workers must run free.
    """

    @classmethod
    def contradictions(cls, settings: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
        """Yields a bound that this schedule cannot keep."""
        yield from super().contradictions(settings)
        if isinstance(settings.max_staleness, int):
            yield ("max_staleness", "mode"), "must be null with mode myschedule:Doubling, which trains rarely"

    def training_due(self) -> bool:
        """Whether L has doubled, or holds the last label that will come."""
        has_doubled = self.pools.labels >= 2 * self.trained_on
        return super().training_due() and (has_doubled or self.all_answered)
