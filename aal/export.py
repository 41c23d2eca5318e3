"""`python -m aal.export RUN --format FORMAT` gives out the labels of a run, finished or not."""

import csv
import io
import json
import pathlib
import re
import sys
from collections.abc import Callable, Iterable, Sequence

from aal.config.errors import UserError, of_system
from aal.config.program import command
from aal.config.terminal import ArgumentParser, run_command, write_line
from aal.exports import label_studio
from aal.exports.images import Images
from aal.exports.labels import Labels
from aal.reporting.labels import ANSWER_COLUMNS, COLUMNS
from aal.storage.atomic import write_whole
from aal.storage.run_reader import Rows

FORMATS = ("csv", "answers", "folder", "coco", "huggingface", "labelstudio")
WHO = ("annotator", "answered_at", "confidence")
TABLES = {"csv": "labels.csv", "answers": "answers.csv"}


def export(run: pathlib.Path, kind: str, out: pathlib.Path | None = None) -> pathlib.Path:
    """Gives out the labels of a run.

    Args:
        run: the run directory; the run may still go on.
        kind: csv (a table), answers (a table of all single answers, as `annotators.answers` takes it), folder (a copy
            of each image in a folder of its class), coco (annotations of whole images, COCO's JSON), huggingface (the
            layout `imagefolder` of the library datasets) or labelstudio (its tasks with annotations, as JSON).
        out: the file of a table, the directory of the others, which must be absent or empty; by default `labels.csv`,
            `answers.csv` or `export-<kind>` in the run directory.

    Returns:
        The file or the directory.

    Raises:
        UserError: the run has no labels or its images are gone, or `out` is taken or cannot be written.
        RunFailed: the disk is full or fails.
    """
    return _write(Labels(run), kind, out)


def _write(labels: Labels, kind: str, out: pathlib.Path | None) -> pathlib.Path:
    out = out or labels.run / TABLES.get(kind, f"export-{kind}")
    try:
        if kind in TABLES:
            columns, table = (
                (COLUMNS, labels.rows) if kind == "csv" else (ANSWER_COLUMNS, _with_label(labels.answers()))
            )
            out.parent.mkdir(parents=True, exist_ok=True)
            write_whole(out, _csv(columns, ([row[key] for key in columns] for row in table)))
            return out
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"--out {out}: is not an empty directory; name a new one")
        out.mkdir(parents=True, exist_ok=True)
        writers: dict[str, Callable[[Labels, Images, pathlib.Path], None]] = {
            "folder": _write_folders,
            "coco": _write_coco,
            "huggingface": _write_imagefolder,
            "labelstudio": label_studio.write,
        }
        writers[kind](labels, Images(labels.run), out)
    except OSError as error:
        raise of_system(error, f"--out {out}: cannot be written: {error.strerror or error}") from None
    return out


def _with_label(answers: Rows) -> Rows:
    """Returns the answers that have a label; a time that is not known is left empty."""
    known = [row for row in answers if row["label"] is not None]
    return [{**row, "seconds": "" if row["seconds"] != row["seconds"] else f"{row['seconds']:.3f}"} for row in known]


def _csv(head: Sequence[str], rows: Iterable[Iterable[object]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue().encode(errors="surrogateescape")


def _write_folders(labels: Labels, images: Images, out: pathlib.Path) -> None:
    """A folder for each class; the names of the files begin with the id, so that no two are the same."""
    folders = _folder_names(labels.rows)
    for row in labels.rows:
        stem = re.sub(r"[^\w.-]", "_", pathlib.PurePosixPath(row["path"] or "").stem)
        name = f"{row['id']:06d}{'-' if stem else ''}{stem}{images.suffix(row)}"
        images.copy(row, out / folders[row["label"]] / name)


def _folder_names(rows: Rows) -> dict[int, str]:
    """Returns the folder of each label: the class name where it can be one, and no other class has it."""
    names = {row["label"]: re.sub(r"[^\w .()+-]", "_", row["class"]).strip(". ") for row in rows}
    taken = list(names.values())
    return {label: name if name and taken.count(name) == 1 else f"{name}-{label}" for label, name in names.items()}


def _write_coco(labels: Labels, images: Images, out: pathlib.Path) -> None:
    """`annotations.json`; source files are named relative to the data directory, other images are written beside it."""
    entries = []
    for row in labels.rows:
        name = row["path"]
        if images.source(row) is None:
            name = f"images/{row['id']:06d}.png"
            images.copy(row, out / name)
        width, height = images.size(row)
        entries.append({"id": row["id"], "file_name": name, "width": width, "height": height})
    categories = dict(sorted((row["label"], row["class"]) for row in labels.rows))
    content = {
        "info": {"description": "labels of an active learning run", "data_dir": str(images.root)},
        "images": entries,
        "categories": [{"id": label, "name": name} for label, name in categories.items()],
        "annotations": [
            {
                **{"id": number, "image_id": row["id"], "category_id": row["label"], "iscrowd": 0},
                **{"bbox": [0, 0, entry["width"], entry["height"]], "area": entry["width"] * entry["height"]},
                **{"attributes": {key: row[key] for key in WHO}},
            }
            for number, (row, entry) in enumerate(zip(labels.rows, entries, strict=True), 1)
        ],
    }
    write_whole(out / "annotations.json", (json.dumps(content, indent=1) + "\n").encode())


def _write_imagefolder(labels: Labels, images: Images, out: pathlib.Path) -> None:
    """`metadata.csv` with label, id, source and who gave it; `load_dataset("imagefolder", data_dir=...)` reads it."""
    names = [f"images/{row['id']:06d}{images.suffix(row)}" for row in labels.rows]
    for row, name in zip(labels.rows, names, strict=True):
        images.copy(row, out / name)
    table = (
        (name, row["class"], row["id"], row["path"], *(row[key] for key in WHO))
        for name, row in zip(names, labels.rows, strict=True)
    )
    write_whole(out / "metadata.csv", _csv(("file_name", "label", "id", "path", *WHO), table))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code: 0 done, 1 the disk is full or fails, 2 a user's mistake."""
    return run_command(lambda: _export(arguments))


def _export(arguments: Sequence[str] | None) -> int:
    parser = ArgumentParser(prog=command("export"), description="Give out the labels of a run, finished or not.")
    parser.add_argument("run", type=pathlib.Path, metavar="RUN", help="the directory of the run")
    parser.add_argument("--format", required=True, choices=FORMATS, help="what is written")
    parser.add_argument(
        "--out", type=pathlib.Path, metavar="PATH", help="where to; labels.csv or export-FORMAT in the run by default"
    )
    given = parser.parse_args(arguments)
    labels = Labels(given.run)
    write_line(str(_write(labels, given.format, given.out)), sys.stdout)
    initial = sum(row["source"] == "initial" for row in labels.rows)
    write_line(f"{len(labels.rows)} labels, {initial} of them initial", sys.stderr)  # the path alone is for scripts
    return 0


if __name__ == "__main__":
    sys.exit(main())
