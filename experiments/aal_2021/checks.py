"""The faults that readers of this field look for first, looked for in the folders of the runs."""

from collections import Counter
from collections.abc import Callable, Hashable

import numpy as np

from aal.app.data import load_split
from aal.app.experiments.aal_2021.page import TEXTS, Check, Claim, count
from aal.app.experiments.aal_2021.results import Result
from aal.app.experiments.aal_2021.statistics import Verdict
from aal.storage.model_files import load_model
from aal.storage.run_reader import RunReader

PROMISES: dict[str, str] = TEXTS["checks"]


def check(results: list[Result]) -> list[Check]:
    """Looks for leaks and unequal starts in all runs of a figure."""
    runs, seeds = f"{len(results)} runs", count(len({result.run.seed for result in results}), "seed")
    models = f"{sum(len(result.summary['curve']) for result in results)} models"

    def broken(is_broken: Callable[[Result], bool]) -> list[str]:
        return [result.run.name for result in results if is_broken(result)]

    def unequal(of: Callable[[Result], Hashable]) -> list[str]:
        """Returns the runs that differ from the first of their seed."""
        first: dict[int, Hashable] = {}
        return broken(lambda result: first.setdefault(result.run.seed, of(result)) != of(result))

    return [
        Check(PROMISES["leaks"], broken(_leaks), runs),
        Check(PROMISES["splits"], unequal(_start), seeds),
        Check(PROMISES["starts"], unequal(lambda result: result.summary["curve"][0]["test_accuracy"]), seeds),
        Check(PROMISES["budgets"], broken(_fell_short), runs),
        Check(PROMISES["epochs"], broken(_keeps_another_epoch), models),
    ]


def concluded(results: list[Result], claims: list[Claim]) -> Check:
    """Looks for conclusions about accuracy from a single seed."""
    runs = (result.run for result in results)
    least = min(Counter((run.method, run.mode, run.servers, run.batch) for run in runs).values())
    looked_at = f"{len(claims)} claims, {count(least, 'seed')}"
    if least > 1:
        return Check(PROMISES["seeds"], [], looked_at)
    decided = [claim.text for claim in claims if claim.verdict in (Verdict.HOLDS, Verdict.FAILS)]
    return Check(PROMISES["seeds"], decided, looked_at, "one seed: nothing is concluded")


def _leaks(result: Result) -> bool:
    """Whether an id is in two parts, or one was offered that is in no worker's shard."""
    split = load_split(result.folder / "split.npz")
    with RunReader(result.folder) as record:
        offered = record.query_times()["item"]
    shards = np.concatenate(split.shards)
    parts = np.concatenate([split.test, split.validation, split.initial, shards])
    return len(np.unique(parts)) < len(parts) or not np.isin(offered, shards).all()


def _start(result: Result) -> Hashable:
    split = load_split(result.folder / "split.npz")
    return split.test.tobytes(), split.validation.tobytes(), split.initial.tobytes()


def _fell_short(result: Result) -> bool:
    labels, last = result.summary["labels"], result.summary["curve"][-1]
    return labels["bought"] != result.run.settings.budget or last["labels"] != labels["total"]


def _keeps_another_epoch(result: Result) -> bool:
    """Looks at the published models; other files may lie beside them, of a training that was cut off."""
    with RunReader(result.folder) as record:
        payloads = [load_model(result.folder / model["path"]) for model in record.models()]
    for payload in payloads:
        scores = [(one["val_accuracy"], one["epoch"]) for one in payload["history"] if one["val_accuracy"] is not None]
        if not scores or payload["epoch"] != max(scores)[1]:
            return True
    return False
