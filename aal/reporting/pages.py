"""The report of a run: `summary.json`, the pictures, and one Markdown page that holds them."""

import contextlib
import pathlib
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from aal.config.errors import of_system
from aal.reporting import confusions as confused
from aal.reporting import plots
from aal.reporting.answers import answers_section
from aal.reporting.clients import clients_table
from aal.reporting.details import annotators_table, classes_table
from aal.reporting.freshness import just_in_time, when_answered, when_offered
from aal.reporting.main_figures import main_figures
from aal.reporting.metrics import summary_bytes, summary_of
from aal.reporting.pictures import PICTURES, draw
from aal.reporting.record import Record, read
from aal.reporting.redundancy import redundancy_section
from aal.reporting.tables import markdown_table, plain_text
from aal.reporting.targets import targets_table
from aal.reporting.units import duration, percent, rounded
from aal.reporting.words import BESIDE, DEFINITIONS, TURNS, VIRTUAL
from aal.storage.atomic import write_whole
from aal.storage.run_reader import Rows

PAGE = "report/report.md"  # within the run directory


def report_of(run: pathlib.Path) -> pathlib.Path:
    """Returns the Markdown page of a run; it is drawn unless it is there and whole, of the record as it is now.

    Raises:
        UserError, RunFailed: as `write_report`.
    """
    page, summary = run / PAGE, run / "summary.json"
    with contextlib.suppress(OSError):
        if page.is_file() and summary.read_bytes() == summary_bytes(summary_of(read(run))):
            return page
    return write_report(run)


def write_report(run: pathlib.Path) -> pathlib.Path:
    """Writes `summary.json` and `report/` of a run, even if it was interrupted or failed; returns the Markdown page.

    Raises:
        UserError: the folder holds no readable run, or the report cannot be written.
        RunFailed: the disk is full or fails.
    """
    record = read(run)
    summary = summary_of(record)
    page = run / PAGE
    folder = page.parent
    drawn = draw(record)
    try:
        folder.mkdir(exist_ok=True)
        page.unlink(missing_ok=True)  # it is there only when all that it shows is
        write_whole(run / "summary.json", summary_bytes(summary))
        if len(pairs := confused.confusions(record)):
            write_whole(folder / confused.FILE, confused.confusion_file(pairs, record.classes))
        for name, figure in drawn.items():
            plots.save(figure, folder / name)
        write_whole(page, _page(run.resolve().name, record, summary, drawn).encode())
    except OSError as error:
        raise of_system(error, f"{folder}: the report cannot be written: {error.strerror or error}") from None
    return page


def _listed(rows: Rows) -> str:
    return markdown_table(list(rows[0]), (map(rounded, row.values()) for row in rows)) if rows else "None.\n"


def _networks(summary: dict[str, Any]) -> list[str]:
    """A table of the networks, where a run has several."""
    if "networks" not in summary:
        return []
    accuracies = ("final_test_accuracy", "mean_curve_accuracy")
    rows = [
        (
            one["name"],
            ", ".join(str(point["version"]) for point in one["curve"]),
            f"{one['queries']:,}",
            *(percent(one[key]) for key in accuracies),
            rounded(one["aubc"]),
        )
        for one in summary["networks"]
    ]
    head = ("network", "versions", "queries chosen", "final accuracy", "mean accuracy", "AUBC")
    return [
        "Workers select with the newest version, whichever network it is of.\n",
        markdown_table(head, rows),
    ]


def _break(row: dict[str, Any]) -> str:
    why = row["ended"] or "killed"
    return (
        f"Interrupted at {row['stopped_at']:.1f} s ({plain_text(why)}) and resumed; the time between does not count.\n"
    )


def _precision(summary: dict[str, Any]) -> str:
    known = summary["eval_precision"]
    return (
        f"Accuracies are computed in {known}." if known else "In which precision accuracies were computed is not known."
    )


def _test_set(record: Record) -> str:
    purposes = list(record.held_out.values())
    if not purposes:
        return "The test set was only reported; it chose nothing."
    number, labelled = len(purposes), sum(example in record.labels for example in record.held_out)
    test = sum(example in record.labels and purpose == "test" for example, purpose in record.held_out.items())
    return (
        "No image was labelled at the start, so there is no test set but this: "
        f"{number:,} images were set aside at random, {purposes.count('test'):,} of them for testing, and labelled by "
        f"people among the first. {labelled:,} have a label; models were tested on up to {test:,} of them, as many as "
        "had one by then, and none was trained on any, though they count as labels. Labels that people gave are "
        "taken for right."
    )


def _epochs(record: Record) -> str:
    validated = [model["val_accuracy"] is not None for model in record.models]
    if not any(validated):
        return "No validation set was used."
    if all(validated):
        return "The validation set chose the epoch of each training."
    return "The validation images chose the epoch once there were enough of them; before, the last one was kept."


def _free_cores(meta: Mapping[str, str]) -> str:
    found = meta.get("free_cores")
    return f"; other programs left {plain_text(found)} cores to the run, in the mean" if found else ""


def _same_staleness(record: Record) -> str:
    """The sentence in the place of a picture with nothing to show."""
    offered, (answered, _) = when_offered(record), when_answered(record)
    if not offered.size:
        return ""
    text = f"Staleness: every query was {offered[0]:.0f} versions behind the newest model when it was offered"
    return f"{text}{' and when it was answered' if answered.size else ''}, so that there is no picture of it.\n"


def _page(name: str, record: Record, summary: dict[str, Any], drawn: Iterable[str]) -> str:
    meta = record.meta
    kinds = (("Annotator wait", "annotator_wait_s"), ("Query interval", "query_interval_s"))
    spreads = [(title, *(duration(time, record.is_virtual) for time in summary[key].values())) for title, key in kinds]
    software = [(key.removeprefix("version_"), meta[key]) for key in sorted(meta) if key.startswith("version_")]
    started = f"Started: {meta['started']}. " if "started" in meta else ""  # a simulated run notes no real time
    parts = [
        f"# Run {plain_text(name)}\n",
        plain_text(
            f"{summary['data_type']}, mode {summary['mode']}, engine {summary['engine']}, seed {summary['seed']}. "
            f"{started}Ended: {meta.get('ended', 'not yet, or it was killed')}."
        ),
        "",
        *([VIRTUAL] if record.is_virtual else []),
        *([TURNS] if summary["mode"] == "sync" else []),
        *map(_break, record.breaks),
        *([f"**Warning**: {plain_text(meta['warning'])}\n"] if "warning" in meta else []),
        f"{_test_set(record)} {_epochs(record)} {_precision(summary)}\n",
        main_figures(record, summary),
        *targets_table(summary),
        *_networks(summary),
        markdown_table(("", "mean", "p50", "p95", "p99", "max"), spreads),
        *(f"![{PICTURES[key]}]({key}.png)\n\n{PICTURES[key]} [PDF]({key}.pdf)\n" for key in PICTURES if key in drawn),
        *([BESIDE] if "waits" in drawn and summary["mode"] != "sync" else []),
        *([_same_staleness(record)] if "staleness" not in drawn else []),
        "## What the words mean\n\n" + DEFINITIONS,
        *filter(None, (just_in_time(record), redundancy_section(record), clients_table(record))),
        *filter(None, (annotators_table(record), answers_section(record), classes_table(record))),
        *([confused.ABOUT] if len(confused.confusions(record)) else []),
        f"## Trainings\n\nAccuracies are from 0 to 1, times in {'virtual ' * record.is_virtual}seconds.\n",
        _listed(record.models),
        "## Workers\n",
        _listed(record.workers),
        "## Software and settings\n",
        markdown_table(("", "version"), software),
        f"Hardware: {plain_text(meta.get('hardware', '-'))}{_free_cores(meta)}\n",
        textwrap.indent(yaml.safe_dump(record.config, sort_keys=False, allow_unicode=True), "    "),
    ]
    return "\n".join(parts)
