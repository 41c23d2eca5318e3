"""What the system allows a program, checked before its processes start."""

import resource

from aal.config.errors import UserError

FILES = 16  # that main, hub and fork server have open whatever the number of processes; measured, less does not do
FILES_A_PROCESS = 2  # the two ends of pipes by which main starts a process and sees it end


def allow_open_files(processes: int) -> None:
    """Raises the limit of open files, as far as the system lets it be, to what so many processes need.

    Raises:
        UserError: the system does not allow as many.
    """
    needed = FILES + FILES_A_PROCESS * processes
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise UserError(
                f"ulimit -n: {hard} open files are too few for {processes} processes, which need {needed}; "
                "raise it, or let workers share processes (devices.worker_processes)"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
