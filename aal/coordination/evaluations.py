"""Which versions are still to be scored on the test set, and by whom."""

from collections.abc import Callable

from aal.coordination.messages import ModelRef


class Evaluations:
    """The versions that evaluators score, the oldest first.

    Args:
        wanted: whether a version is to be scored, asked when it is published; of the newest one again later, since
            it may turn out to be the last.
    """

    def __init__(self, wanted: Callable[[int], bool]) -> None:
        self._wanted = wanted
        self._due: dict[int, ModelRef] = {}
        self._newest: ModelRef | None = None  # that was not scored
        self._held: dict[int, int] = {}  # version by evaluator

    @property
    def due(self) -> bool:
        """Whether some version is still to be scored."""
        return bool(self._all_due())

    def add(self, model: ModelRef) -> None:
        """Notes a version that was published."""
        self._newest = model
        self._all_due()

    def _all_due(self) -> dict[int, ModelRef]:
        if self._newest is not None and self._wanted(self._newest.version):
            self._due[self._newest.version] = self._newest
        return self._due

    def next(self, evaluator: int) -> ModelRef | None:
        """Gives an evaluator a version; one that asks while it holds one is given it again."""
        free = self._all_due().keys() - {version for other, version in self._held.items() if other != evaluator}
        version = self._held.get(evaluator, min(free, default=None))
        if version is None:
            return None
        self._held[evaluator] = version
        return self._due[version]

    def note(self, version: int) -> None:
        """Notes that a version was scored."""
        self._due.pop(version, None)
        if self._newest is not None and self._newest.version == version:
            self._newest = None
        self._held = {evaluator: other for evaluator, other in self._held.items() if other != version}

    def release(self, evaluator: int) -> None:
        """Takes back what an evaluator held that died."""
        self._held.pop(evaluator, None)
