"""The versions and jobs of each target model; a run without targets has one."""

from collections.abc import Sequence

from aal.coordination.messages import ModelRef, TrainingJob


class Lineages:
    """What each target was trained on, and its newest version.

    Args:
        number: of targets.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._last = {target: (0, -1) for target in range(number)}  # labels and number of its last job
        self._revisions = dict.fromkeys(range(number), 0)  # of the labels of its last job
        self._jobs = dict.fromkeys(range(number), 0)
        self._versions = dict.fromkeys(range(number), 0)
        self._newest: dict[int, ModelRef] = {}

    @property
    def lagging(self) -> int:
        """The target that lags most: whose last job had the fewest labels, of several the one it was longest ago."""
        return min(self._last, key=self._last.__getitem__)

    @property
    def trained_on(self) -> int:
        """Labels of the largest job of the target that lags most."""
        return self._last[self.lagging][0]

    @property
    def revision(self) -> int:
        """The revision of the labels that every target has been trained on."""
        return min(self._revisions.values())

    @property
    def rounds(self) -> int:
        """How many jobs every target has been given, the initial one included."""
        return min(self._jobs.values())

    @property
    def generations(self) -> int:
        """How many versions every target has."""
        return min(self._versions.values())

    @property
    def newest(self) -> tuple[ModelRef, ...]:
        """The newest version of each target that has one, in the order of the targets."""
        return tuple(self._newest[target] for target in sorted(self._newest))

    def note_job(self, job: TrainingJob, revision: int = 0) -> None:
        """Counts a job for its target; a surplus over the threshold is absorbed.

        Args:
            job: that was given out.
            revision: of the labels that it reads.
        """
        self._revisions[job.target] = max(self._revisions[job.target], revision)
        self._jobs[job.target] += 1
        self._last[job.target] = max(self._last[job.target], (job.labels, job.number))

    def note_model(self, model: ModelRef) -> None:
        """Counts a version for its target; models may come in any order."""
        self._versions[model.target] += 1
        self._newest[model.target] = max(model, self._newest.get(model.target, model), key=lambda one: one.version)


def up_to(last: ModelRef, models: Sequence[ModelRef]) -> list[ModelRef]:
    """Returns a model and the versions of its target before it, the newest first; `models` are in order."""
    return [one for one in reversed(models) if one.target == last.target and one.version <= last.version]
