"""A hub, 64 workers' worth of offers and 1,000 annotators as fast as they can: does anything grow or slow down?

Example:
  python -m bench.soak --minutes 10
"""

import json
import sys
import time
from typing import Any

import psutil

from bench.load_generator import annotate_at_once, offer_and_train, running, served_hub
from bench.rows import parser_of, until


def main(words: list[str] | None = None) -> int:
    """Runs the command; the exit code is 1 when memory or open files grew, or the rate fell."""
    parser = parser_of("bench.soak", __doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="(default: 10)")
    parser.add_argument("--shard", type=int, default=500_000, help="ids of each worker")  # more than can be labelled
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(words)
    return report(soak(60 * arguments.minutes, arguments.shard), arguments.json)


def soak(seconds: float, shard: int) -> list[dict[str, Any]]:
    """Runs for so long; returns what every process held, every ten seconds."""
    samples = []
    with served_hub(shard) as hub, running((offer_and_train, hub), (annotate_at_once, hub)) as processes:
        names, pids = ("server and workers", "annotators", "hub"), [*(process.pid for process in processes), hub.pid]
        watched = dict(zip(names, map(psutil.Process, pids), strict=True))
        until(lambda: hub.monitor.status().labels > 0, 60.0)
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            time.sleep(min(10.0, seconds / 6))
            sample = {
                "seconds": round(time.monotonic() - began, 1),
                "labels": hub.monitor.status().labels,
                "private_mib": {key: round(one.memory_full_info().uss / 2**20, 1) for key, one in watched.items()},
                "files": {key: one.num_fds() for key, one in watched.items()},
            }
            samples.append(sample)
            print(json.dumps(sample), file=sys.stderr, flush=True)
        hub.monitor.stop()
        for process in processes:
            process.join(30)
    return samples


def report(samples: list[dict[str, Any]], as_json: bool) -> int:
    """Compares the time after the first tenth with the end; returns the exit code."""
    after = [one for one in samples if one["seconds"] >= samples[-1]["seconds"] / 10]
    begin, middle, end = after[0], after[len(after) // 2], after[-1]
    first, second = (
        (late["labels"] - early["labels"]) / (late["seconds"] - early["seconds"])
        for early, late in ((begin, middle), (middle, end))
    )
    grown = {name: 2**20 * (mib - begin["private_mib"][name]) for name, mib in end["private_mib"].items()}
    labels = end["labels"] - begin["labels"]
    found = {
        "seconds": end["seconds"],
        "labels": end["labels"],
        "labels_per_s": {"first half": round(first), "second half": round(second)},
        **{key: {"after a tenth": begin[key], "at the end": end[key]} for key in ("private_mib", "files")},
        "grown_bytes_per_label": {name: round(size / max(labels, 1), 1) for name, size in grown.items()},
    }
    print(json.dumps(found, indent=None if as_json else 2))
    # The hub keeps the place in S or L of every id: some bytes a label are its work, not a leak.
    flat = all(size <= 64 * labels + 2**24 for size in grown.values())
    return 0 if flat and second >= 0.8 * first and begin["files"] == end["files"] else 1


if __name__ == "__main__":
    sys.exit(main())
