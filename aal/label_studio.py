"""Label Studio's JSON, both ways: labels of a run as its tasks, and its export as images and labels of a run.

The form is that of image classification (`<Choices name="choice" toName="image">`), documented at
https://labelstud.io/guide/export and https://labelstud.io/guide/tasks.
"""

import collections
import json
import pathlib
import urllib.parse
from collections.abc import Iterable
from typing import Any

from aal.config.errors import UserError

LOCAL_FILES = "/data/local-files/?d="  # Label Studio's address of files in its local storage


def task_of(row: dict[str, Any], image: str, answers: Iterable[tuple[int, str | None, float]]) -> dict[str, Any]:
    """Returns a label as a task: each answer is an annotation, what they come to a prediction with its confidence.

    Args:
        row: of `read_labels`.
        image: path of its file in Label Studio's local storage.
        answers: who gave which class (None: could not tell, which Label Studio has as cancelled) in how many seconds.
    """
    given = [
        {
            **{"result": [] if name is None else [_choice(name)], "was_cancelled": name is None},
            **{"completed_by": who, "lead_time": None if seconds != seconds else round(seconds, 3)},
        }
        for who, name, seconds in answers
    ]
    label = {"model_version": "aal", "score": row["confidence"], "result": [_choice(row["class"])]}
    if row["source"] == "initial":
        given, label = [{"result": [_choice(row["class"])], "was_cancelled": False}], {}
    return {
        "id": row["id"],
        "data": {"image": LOCAL_FILES + urllib.parse.quote(image)},
        "annotations": given,
        "predictions": [label] if label else [],
    }


def _choice(name: str) -> dict[str, Any]:
    return {"from_name": "choice", "to_name": "image", "type": "choices", "value": {"choices": [name]}}


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
        tasks = json.loads(pathlib.Path(export).expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"data_options.export: {export}: cannot be read: {error}") from None
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks) or not tasks:
        raise UserError(f"data_options.export: {export}: is no list of tasks, as Label Studio exports them in JSON")
    files, labels = [], []
    for number, task in enumerate(tasks, 1):
        try:
            files.append(_file_of(task, data_dir))
            labels.append(_label_of(task))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise UserError(f"data_options.export: {export}: task {number}: {error}") from None
    return {"images": files, "labels": labels, **({} if classes is None else {"classes": classes})}


def _file_of(task: dict[str, Any], data_dir: pathlib.Path) -> str:
    """Returns the path of a task's image, as `data_dir` has it."""
    address = task.get("data", task).get("image")  # JSON-MIN has the fields of `data` at the top
    if not isinstance(address, str):
        raise ValueError("has no image")
    parts = urllib.parse.urlsplit(address)
    named = urllib.parse.parse_qs(parts.query).get("d", [urllib.parse.unquote(parts.path)])[0]
    pieces = [piece for piece in pathlib.PurePosixPath(named).parts if piece not in ("/", "..")]
    uploaded = pieces[-1].partition("-")[2] if pieces else ""  # an upload is named HASH-photo.jpg
    for place in range(len(pieces)):
        for last in dict.fromkeys((pieces[-1], uploaded)):
            path = data_dir.joinpath(*pieces[place:-1], last)
            if last and path.is_file():
                return str(path)
    raise ValueError(f"{named!r} is not under data_dir {data_dir}")


def _label_of(task: dict[str, Any]) -> str | None:
    """Returns what most annotations of a task say; None where there is none."""
    if "choice" in task and "annotations" not in task:
        return str(task["choice"])
    votes: collections.Counter[str] = collections.Counter()
    for annotation in task.get("annotations") or ():
        if annotation.get("was_cancelled"):
            continue
        for result in annotation.get("result") or ():
            if result.get("type") == "choices":
                votes.update(map(str, result["value"]["choices"][:1]))
    return max(votes, key=votes.__getitem__) if votes else None
