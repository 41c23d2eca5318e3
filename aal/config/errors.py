"""The three ways in which a run can end other than well."""

INTERRUPTED = {"SIGHUP": 129, "SIGINT": 130, "SIGTERM": 143}  # exit codes by the signal that asked for the end


class UserError(Exception):
    """Something only the user can mend; told in one line a problem, exit code 2.

    Args:
        *problems: what is wrong, where, and what would be right; one line each.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__(*problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(self.problems)


class RunFailed(Exception):  # noqa: N818 - said of a run, as Stopped is
    """A run that cannot go on; the message names the role and the reason, exit code 1."""


class Stopped(Exception):  # noqa: N818 - a word to the roles, not an error
    """The run is over: said by the hub to a role that asks for more."""
