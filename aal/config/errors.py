"""The ways in which a run can end other than well."""

import errno

INTERRUPTED = {"SIGHUP": 129, "SIGINT": 130, "SIGTERM": 143}  # exit codes by the signal that asked for the end
# What a user can mend: a path that is wrong, or that this user may not read or write.
MENDABLE = {
    *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG),
    *(errno.ELOOP, errno.EEXIST, errno.ENOTEMPTY),
}


class UserError(Exception):
    """Something only the user can mend; reported in one line a problem, exit code 2.

    Args:
        *problems: what is wrong, where, and what would be right; one line each.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__(*problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(self.problems)


class Refused(UserError):  # noqa: N818 - the state of a run
    """What an engine needs is not there, so that the run does not begin, or does not go on."""


class RunFailed(Exception):  # noqa: N818 - said of a run, as Stopped is
    """A run that cannot go on; the message names the role and the reason, exit code 1."""


class RecordFailed(Exception):  # noqa: N818 - the state of a record
    """The record could not be written: what was flushed before is safe, nothing after it is."""


class Stopped(Exception):  # noqa: N818 - a request, not an error
    """The run is over: raised by the hub for a role that asks for more."""


class Superseded(Exception):  # noqa: N818 - a state of the process that is refused
    """The caller counts as dead, and another process has taken its place: it ends without a word to the hub."""


def is_mendable(error: OSError) -> bool:
    """Whether the user can mend what the system reports; a disk that is full or fails is not the user's mistake."""
    return error.errno in MENDABLE


def of_system(error: OSError, text: str) -> UserError | RunFailed:
    """Returns what stands for an error of the system: a `UserError` where the user can mend it, else a `RunFailed`."""
    return UserError(text) if is_mendable(error) else RunFailed(text)


def innermost(error: BaseException) -> BaseException:
    """Returns what went wrong first in a group of tasks, not that it came from a group."""
    return innermost(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error
