"""Which file is the same on two machines: one that both see, by a mount or because they are one machine."""

import pathlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Identity:
    """A file or folder as one machine sees it.

    Attributes:
        path: of it.
        facts: its number on its file system, its size and when it was changed.
    """

    path: pathlib.Path
    facts: tuple[int, int, int]

    @classmethod
    def of(cls, path: pathlib.Path) -> "Identity":
        """Returns that of a file which is there."""
        stat = path.stat()
        return cls(path, (stat.st_ino, stat.st_size, stat.st_mtime_ns))

    def is_seen(self) -> bool:
        """Whether this machine sees the same file at the same path."""
        try:
            return Identity.of(self.path) == self
        except OSError:
            return False
