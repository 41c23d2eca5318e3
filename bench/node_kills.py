"""Kills machines of a Ray cluster under small runs at random moments, adds new ones, and checks what was promised.

Four machines on this one, that share no folder but the run's, which the hub's machine sees: a head with the command,
and one each for the hub, the server, and the workers. A kill is SIGKILL of all processes of one of the last three.

Example:
  python -m bench.node_kills --kills 100 --seed 0
"""

import collections
import contextlib
import math
import pathlib
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from aal.config.errors import RunFailed
from bench.machines import Machines
from bench.promises import Answers, answers_of, breaches, progress_of
from bench.rows import at_least_one, parser_of, until
from bench.run_process import Run, running
from bench.settings import WORDS

LIMIT_S = 900.0  # for a run, and for it to go on after a kill
LEFT_S = 60.0  # for the last processes to end after a run
PINS = {"hub": "hub", "server": "server", "worker": "worker", "annotators": "worker"}
COMES = {"hub": ["answers"], "server": ["models"], "worker": ["offers", "answers"]}  # from the machine of each
GOES_ON = {"hub": [], "server": ["answers"], "worker": ["models"]}  # without it; without the hub nothing is recorded


class Kill(NamedTuple):
    """What a run did after a machine was lost.

    Attributes:
        seconds: until what comes from the machine came again; infinity where the run ended first.
        meanwhile: rows until then of what goes on without the machine.
    """

    seconds: float
    meanwhile: int


def main(words: list[str] | None = None) -> int:
    """Runs the command; the exit code is 1 when a promise was broken or a run failed."""
    parser = parser_of("bench.node_kills", __doc__)
    parser.add_argument("--kills", type=at_least_one, default=100, help="machines to kill (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the machines (default: 0)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="after which no run is started")
    arguments = parser.parse_args(words)
    chance, kills = random.Random(arguments.seed), collections.defaultdict[str, list[Kill]](list)
    broken: list[str] = []
    runs, answers, end = 0, 0, time.monotonic() + 60 * arguments.minutes
    with _machines() as machines:
        while sum(map(len, kills.values())) < arguments.kills and not broken and time.monotonic() < end:
            folder = pathlib.Path(tempfile.mkdtemp(prefix="node-kills-"))
            try:
                seen = _killed_run(machines, folder / "run", chance, kills, arguments, runs)
                broken, answers = breaches(folder / "run", seen), answers + len(seen)
            except (RunFailed, TimeoutError) as error:
                broken = [str(error)]
            runs += 1
            print(
                f"run {runs}: {sum(map(len, kills.values()))} kills; {broken or 'whole'}", file=sys.stderr, flush=True
            )
            if broken:
                print(f"the run and what it said are kept in {folder}", file=sys.stderr)
            else:
                shutil.rmtree(folder)
    for name, own in sorted(kills.items()):
        timed = [kill for kill in own if math.isfinite(kill.seconds)]
        came = [kill.seconds for kill in timed]
        median, most = (statistics.median(came), max(came)) if came else (math.nan, math.nan)
        text = f"{' and '.join(COMES[name])} came again after {median:.0f} s, {most:.0f} s at most"
        text += f"; the run ended first {len(own) - len(came)} times"
        for table in GOES_ON[name]:
            meanwhile = [kill.meanwhile for kill in timed]
            text += f"; {sum(meanwhile)} {table} meanwhile, after {sum(map(bool, meanwhile))} of the kills"
        print(f"the machine of the {name}: {len(own)} kills; {text}")
    print(f"{runs} runs, {answers} answers seen on disk: {'; '.join(broken) or 'nothing was lost, nothing came twice'}")
    return 1 if broken else 0


def _killed_run(
    machines: Machines,
    folder: pathlib.Path,
    chance: random.Random,
    kills: dict[str, list[Kill]],
    arguments: Any,
    seed: int,
) -> Answers:
    """Runs to the end with kills meanwhile; returns the answers that were on disk before them."""
    pins = ", ".join(f"{role}: {name}" for role, name in PINS.items())
    words = [
        *WORDS["chaos"],
        "server_num=1",
        "worker_num=1",
        "worker_query_num=40",
        "devices.server_threads=1",
        "--seed",
        str(seed),
    ]
    words += ["engine=ray", f"ray.address={machines.address}", "ray.shared_folder=false", f"ray.pins={{{pins}}}"]
    seen, deadline = Answers(), time.monotonic() + LIMIT_S
    with running(words, folder) as run:
        _go_on(run, {"answers": 0})
        while run.process.poll() is None:
            time.sleep(chance.uniform(0.0, 5.0))
            if run.process.poll() is None and sum(map(len, kills.values())) < arguments.kills:
                seen |= answers_of(folder)
                name, began = chance.choice(("hub", "server", "worker")), time.monotonic()
                known = _rows_of(folder, name)
                machines.lose(name)
                # What came until then; a record whose writer was killed may not be readable until it is opened again.
                before = {table: max(known[table], rows) for table, rows in _rows_of(folder, name).items()}
                others = progress_of(folder, GOES_ON[name])
                machines.add(name)
                is_over = _go_on(run, before)
                seconds = math.inf if is_over else time.monotonic() - began
                kills[name].append(Kill(seconds, max(0, progress_of(folder, GOES_ON[name]) - others)))
            elif time.monotonic() > deadline:
                raise RunFailed(f"a run took longer than {LIMIT_S:.0f} s")
        run.check()
    if not until(lambda: not machines.actors(), LEFT_S):
        raise RunFailed(f"left after the run: {', '.join(machines.actors())}")
    return seen


def _rows_of(folder: pathlib.Path, name: str) -> dict[str, int]:
    """Returns how many rows are on disk of the tables that a machine's processes fill."""
    return {table: progress_of(folder, [table]) for table in COMES[name]}


def _go_on(run: Run, before: Mapping[str, int]) -> bool:
    """Waits until there are more rows of all these tables than before; returns whether the run has ended first."""

    def come() -> bool:
        return all(progress_of(run.folder, [table]) > rows for table, rows in before.items())

    if not until(lambda: run.process.poll() is not None or come(), LIMIT_S):
        raise RunFailed(f"hung: no {' and '.join(before)} came after a kill")
    return not come()


@contextlib.contextmanager
def _machines() -> Iterator[Machines]:
    with tempfile.TemporaryDirectory(prefix="bench-nodes-", ignore_cleanup_errors=True) as folder:
        machines = Machines(pathlib.Path(folder), dict.fromkeys(("head", "hub", "server", "worker"), 4))
        try:
            yield machines
        finally:
            machines.close()


if __name__ == "__main__":
    sys.exit(main())
