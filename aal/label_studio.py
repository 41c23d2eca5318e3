"""What Label Studio exports, as images and labels of a run; `aal.exports.label_studio` writes what it imports.

The form is that of image classification (`<Choices name="choice" toName="image">`), documented at
https://labelstud.io/guide/export.
"""

import collections
import json
import pathlib
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from aal.config.errors import UserError


class Annotation(NamedTuple):
    """What somebody said of an image in Label Studio.

    Attributes:
        annotator: the name that an export of ours noted, or else the e-mail address or the number of the user; who is
            not known has a name of this annotation alone.
        label: name of the class.
        seconds: that it took; None where that is not known.
    """

    annotator: str
    label: str
    seconds: float | None


def images(data_dir: pathlib.Path, export: str, classes: list[str] | None = None) -> dict[str, Any]:
    """Returns the images and labels of a project that was exported from Label Studio, as JSON or JSON-MIN.

    A run takes them with `data_type=aal.label_studio:images data_options.export=project.json`. The label of an image is
    what most annotations say, of several the first; images without one are to be labelled. A file is looked for under
    `data_dir` by its path in the project's storage, and by its name without what an upload puts before it.

    Args:
        data_dir: where the images are.
        export: the file that Label Studio wrote.
        classes: their names in order; by default those that occur, sorted.

    Raises:
        UserError: the file is no such export, or an image is not there.
    """
    try:
        found = read_export(pathlib.Path(export).expanduser(), lambda path: (data_dir / path).is_file())
    except ValueError as error:
        raise UserError(f"data_options.export: {export}: {error}; data_dir is {data_dir}") from None
    labels = [_majority(annotations) for annotations in found.values()]
    files = [str(data_dir / path) for path in found]
    return {"images": files, "labels": labels, **({} if classes is None else {"classes": classes})}


def read_export(export: pathlib.Path, is_there: Callable[[str], bool]) -> dict[str, list[Annotation]]:
    """Returns the annotations of each image that Label Studio exported, in the order of the file.

    Those cancelled or without a choice are left out. JSON has an entry for each image, JSON-MIN for each annotation.

    Args:
        export: the file.
        is_there: whether a path is that of an image; of the ends of an address, the longest that is one is taken.

    Raises:
        ValueError: it cannot be read, is no such export, or an image is not there.
    """
    try:
        tasks = json.loads(export.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot be read: {error}") from None
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks) or not tasks:
        raise ValueError("is no list of tasks, as Label Studio exports them in JSON")
    found: dict[str, list[Annotation]] = {}
    for number, task in enumerate(tasks, 1):
        try:
            found.setdefault(_file_of(task, is_there), []).extend(_annotations_of(task, number))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"task {number}: {error}") from None
    return found


def _file_of(task: dict[str, Any], is_there: Callable[[str], bool]) -> str:
    """Returns the path of a task's image."""
    address = task.get("data", task).get("image")  # JSON-MIN has the fields of `data` at the top
    if not isinstance(address, str):
        raise ValueError("has no image")
    parts = urllib.parse.urlsplit(address)
    named = urllib.parse.parse_qs(parts.query).get("d", [urllib.parse.unquote(parts.path)])[0]
    pieces = [piece for piece in pathlib.PurePosixPath(named).parts if piece not in ("/", "..")]
    uploaded = pieces[-1].partition("-")[2] if pieces else ""  # an upload is named HASH-photo.jpg
    for place in range(len(pieces)):
        for last in dict.fromkeys((pieces[-1], uploaded)):
            path = "/".join((*pieces[place:-1], last))
            if last and is_there(path):
                return path
    raise ValueError(f"{named!r} is not among the images")


def _annotations_of(task: dict[str, Any], number: int) -> Iterator[Annotation]:
    if "data" not in task:
        if (label := _first(task.get("choice"))) is not None:
            yield Annotation(_name_of(task.get("annotator"), number), label, task.get("lead_time"))
        return
    for place, annotation in enumerate(task.get("annotations") or (), 1):
        if annotation.get("was_cancelled"):
            continue
        for result in annotation.get("result") or ():
            if result.get("type") == "choices" and (label := _first(result["value"]["choices"])) is not None:
                who = (result.get("meta") or {}).get("annotator") or annotation.get("completed_by")
                yield Annotation(_name_of(who, number, place), label, annotation.get("lead_time"))
                break


def _name_of(who: object, number: int, place: int = 1) -> str:
    """Returns a name: the number or e-mail address of a user, or what an export of ours noted.

    Two answers to one image are of two people: who is not known has a name of the annotation, its task and place.
    """
    known = who.get("email", who.get("id")) if isinstance(who, dict) else who
    return f"unknown {number}.{place}" if known is None else str(known)


def _first(choices: Any) -> str | None:
    """Returns the first of several choices, None of none; JSON-MIN has one as text, several as {"choices": [...]}."""
    several = choices["choices"] if isinstance(choices, dict) else choices
    first = next(iter(several), None) if isinstance(several, list) else several
    return None if first is None else str(first)


def _majority(annotations: Iterable[Annotation]) -> str | None:
    """Returns the label of most annotations, of several the first; None of none."""
    votes = collections.Counter(annotation.label for annotation in annotations)
    return max(votes, key=votes.__getitem__) if votes else None
