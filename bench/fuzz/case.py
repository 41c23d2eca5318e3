"""What a subject gives the loop: a case, which ends in one of several ways that are right, or shows a defect."""

from collections.abc import Callable
from dataclasses import dataclass


class Broken(Exception):  # noqa: N818 - said of a promise
    """Something that must always hold does not; the message says what."""


class TooLong(BaseException):
    """A case took longer than any may."""


@dataclass(frozen=True)
class Case:
    """One case.

    Attributes:
        about: what it is, for the reader of a failure.
        attempt: tries it and returns how it ended, a word or two for each part; raises UserError where it is refused,
            which is right too, and anything else where something is wrong.
    """

    about: str
    attempt: Callable[[], list[str]]
