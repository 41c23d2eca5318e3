"""Which versions are still to be scored on the test set, and by whom."""

from collections.abc import Callable

from aal.coordination.messages import ModelRef


class Evaluations:
    """The versions that evaluators score, the oldest first.

    Args:
        wanted: whether a version is to be scored, asked when it is published.
    """

    def __init__(self, wanted: Callable[[int], bool]) -> None:
        self._wanted = wanted
        self._due: dict[int, ModelRef] = {}
        self._held: dict[int, int] = {}  # version by evaluator

    @property
    def due(self) -> bool:
        """Whether some version is still to be scored."""
        return bool(self._due)

    def add(self, model: ModelRef) -> None:
        """Notes a version that was published."""
        if self._wanted(model.version):
            self._due[model.version] = model

    def next(self, evaluator: int) -> ModelRef | None:
        """Gives an evaluator a version; one that asks while it holds one is given it again."""
        free = self._due.keys() - {version for other, version in self._held.items() if other != evaluator}
        version = self._held.get(evaluator, min(free, default=None))
        if version is None:
            return None
        self._held[evaluator] = version
        return self._due[version]

    def note(self, version: int) -> None:
        """Notes that a version was scored."""
        self._due.pop(version, None)
        self._held = {evaluator: other for evaluator, other in self._held.items() if other != version}

    def release(self, evaluator: int) -> None:
        """Takes back what an evaluator held that died."""
        self._held.pop(evaluator, None)
