"""The commands of docs/extending.md, run one after another in one process: starting Python is most of their time.

Example:
  python -m tests.guide FOLDER    # a folder a section; prints [title, exit code, output] of each as JSON
"""

import contextlib
import io
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import traceback
from collections.abc import Iterator

from aal.cli import main

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "docs" / "examples"
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def sections() -> dict[str, str]:
    """Title and script of each section that has blocks marked `bash run`."""
    found = {}
    for section in (ROOT / "docs" / "extending.md").read_text().split("\n## ")[1:]:
        script = "".join(body for kind, body in FENCE.findall(section) if kind == "bash run")
        if script:
            found[section.splitlines()[0]] = script
    return found


def steps(script: str) -> Iterator[tuple[bool, str]]:
    """The commands of `aal`, and what stands between them; whether each is one of `aal`."""
    for part in re.split(r"^(aal .*)\n", script.replace("\\\n", " "), flags=re.MULTILINE):
        if part.strip():
            yield part.startswith("aal "), part


def run(script: str) -> int:
    """Runs the steps of a script in the current folder up to the first that fails; returns the last exit code."""
    for is_ours, step in steps(script):
        if is_ours:
            code = main(shlex.split(step)[1:])
        else:
            done = subprocess.run(["bash", "-eu", "-c", step], capture_output=True, text=True, check=False)
            print(done.stdout, done.stderr)
            code = done.returncode
        if code:
            return code
    return 0


def run_all(base: pathlib.Path) -> list[tuple[str, int, str]]:
    """Runs each section in a folder of its own, outside the repository, that holds nothing but the examples."""
    results = []
    for number, (title, script) in enumerate(sections().items()):
        here = base / str(number)
        shutil.copytree(EXAMPLES, here, ignore=shutil.ignore_patterns("__pycache__"))
        output = io.StringIO()
        with contextlib.chdir(here), contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            try:
                code = run(script)
            except BaseException:
                traceback.print_exc()
                code = -1
        results.append((title, code, output.getvalue()))
    return results


if __name__ == "__main__":
    os.environ["PATH"] = os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ["PATH"]])
    print(json.dumps(run_all(pathlib.Path(sys.argv[1]))))
