"""Hundreds of scripted people label over HTTP while models train: how long they wait, and what they label an hour.

Example:
  python -m bench.labelling --people 200 --seconds-per-label 2
"""

import json
import pathlib
import sys
import tempfile
from typing import Any

import numpy as np

from bench.rows import parser_of
from bench.run_process import running
from bench.settings import WORDS
from bench.visitors import Visitors

LIMIT_S = 3600.0
AFTER_START = "SELECT answered_at FROM answers ORDER BY arrival LIMIT 1 OFFSET"


def main(words: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = parser_of("bench.labelling", __doc__)
    parser.add_argument("--people", type=int, default=200, help="who label at once (default: 200)")
    parser.add_argument("--seconds-per-label", type=float, default=2.0, help="in the mean (default: 2)")
    arguments = parser.parse_args(words)
    print(json.dumps(measured(arguments.people, arguments.seconds_per_label), indent=2))
    return 0


def measured(people: int, seconds: float) -> dict[str, Any]:
    """Lets people label the digits to their end; returns what they waited for.

    Args:
        people: who label at once.
        seconds: of an answer, in the mean.
    """
    with tempfile.TemporaryDirectory(prefix="bench-labelling-") as folder:
        place = pathlib.Path(folder) / "run"
        visitors = Visitors(place, people, seconds, gives_up=0.0)
        with running([*WORDS["labelling"], *visitors.words], place) as run, visitors.labelling():
            run.wait(lambda: run.value("SELECT count(*) FROM answers") > people, LIMIT_S)
            for visitor in visitors.all:  # what came before was the start
                visitor.visit.waits_s.clear()
                visitor.visit.answers_s.clear()
            run.wait(limit_s=LIMIT_S)
        models = run.value("SELECT count(*) FROM models")
        bought = run.value("SELECT count(*) FROM answers") - people
        took = run.value("SELECT max(answered_at) FROM answers") - run.value(f"{AFTER_START} {people}")
    answers = np.concatenate([visitor.visit.answers_s for visitor in visitors.all])
    waits = np.concatenate([visitor.visit.waits_s for visitor in visitors.all])
    return {
        "people": people,
        "labels": int(bought),
        "labels_per_s": round(bought / took, 1),
        "labels_an_hour_of_one": round(3600 * bought / took / people),
        "models": int(models),
        "answer_ms": _quantiles(answers),
        "next_image_ms": _quantiles(waits),
    }


def _quantiles(seconds: np.ndarray) -> dict[str, float]:
    shares = {"p50": 50, "p95": 95, "p99": 99, "max": 100}
    return {name: round(1000 * float(np.percentile(seconds, share)), 1) for name, share in shares.items()}


if __name__ == "__main__":
    sys.exit(main())
