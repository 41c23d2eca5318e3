"""Which commit of the program runs."""

import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]  # the folder that holds aal
ANSWERS_WITHIN_S = 5.0


def source_commit(root: pathlib.Path = ROOT) -> str | None:
    """Returns the commit of the checkout that a program runs from, ending in `-dirty` where files were changed.

    Args:
        root: of the checkout.

    Returns:
        None for an installed package, or where there is no git.
    """
    if not (root / ".git").exists():  # git would go on to the folders above, to another program's commit
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWERS_WITHIN_S, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
