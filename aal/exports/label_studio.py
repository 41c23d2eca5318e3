"""The labels of a run as tasks of Label Studio, in JSON; `aal.label_studio` reads what that exports.

The form is that of image classification (`<Choices name="choice" toName="image">`), documented at
https://labelstud.io/guide/tasks.
"""

import collections
import json
import pathlib
import urllib.parse
from collections.abc import Iterable
from typing import Any
from xml.sax.saxutils import quoteattr

from aal.exports.images import Images
from aal.exports.labels import Labels
from aal.storage.atomic import write_whole
from aal.storage.run_reader import RunReader

LOCAL_FILES = "/data/local-files/?d="  # Label Studio's address of files in its local storage


def labelling_config(classes: Iterable[str]) -> str:
    """Returns what a project of Label Studio needs to know of the classes: its labelling interface, as XML."""
    choices = "".join(f"    <Choice value={quoteattr(name)}/>\n" for name in classes)
    return (
        '<View>\n  <Image name="image" value="$image"/>\n  <Choices name="choice" toName="image">\n'
        f"{choices}  </Choices>\n</View>\n"
    )


def task_of(
    image: str, answers: Iterable[tuple[str, str | None, float]], label: dict[str, Any] | None
) -> dict[str, Any]:
    """Returns an image as a task: each answer is an annotation, what they come to a prediction with its confidence.

    Label Studio refuses annotations of people whom it does not know. So `completed_by` is set only where a name is an
    e-mail address; every name stands in `meta` of the choice, which is kept.

    Args:
        image: path of its file below Label Studio's document root.
        answers: who gave which class (None: could not tell, which Label Studio has as cancelled) in how many seconds.
        label: row of `read_labels`; None where there is no label yet.
    """
    task = {"data": {"image": LOCAL_FILES + urllib.parse.quote(image)}}
    if label is not None and label["source"] == "initial":
        return {**task, "annotations": [_annotation([_choice(label["class"])])], "predictions": []}
    given = [
        {
            **_annotation([] if name is None else [{**_choice(name), "meta": {"annotator": who}}]),
            "lead_time": None if seconds != seconds else round(seconds, 3),
            **({"completed_by": {"email": who}} if "@" in who else {}),
        }
        for who, name, seconds in answers
    ]
    found = (
        []
        if label is None
        else [{"model_version": "aal", "score": label["confidence"], "result": [_choice(label["class"])]}]
    )
    return {**task, "annotations": given, "predictions": found}


def _annotation(result: list[dict[str, Any]]) -> dict[str, Any]:
    return {"result": result, "was_cancelled": not result, "ground_truth": False}


def _choice(name: str) -> dict[str, Any]:
    return {"from_name": "choice", "to_name": "image", "type": "choices", "value": {"choices": [name]}}


def write(labels: Labels, images: Images, out: pathlib.Path) -> None:
    """Writes `tasks.json` and `labelling.xml`; files are named from the folder on that holds the data directory.

    Images without a source file are written beside, and named from the folder on that holds `out`.
    """
    answers: dict[int, list[tuple[str, str | None, float]]] = collections.defaultdict(list)
    for answer in labels.answers():
        answers[answer["item"]].append((str(answer["annotator"]), answer["label"], answer["seconds"]))
    with RunReader(labels.run) as reader:
        classes, paths = reader.classes(), reader.paths()
        waiting = [item for item, part, *_ in reader.examples() if part == "shard"]
    rows = {row["id"]: row for row in labels.rows}
    tasks = []
    for item in dict.fromkeys((*rows, *waiting)):
        row = rows.get(item)
        image = {"id": item, "path": paths.get(item)}
        name = f"{images.root.absolute().name}/{image['path']}"
        if images.source(image) is None:
            name = f"{out.absolute().name}/images/{item:06d}.png"
            images.copy(image, out / "images" / f"{item:06d}.png")
        tasks.append(task_of(name, answers[item], row))
    write_whole(out / "tasks.json", (json.dumps(tasks, indent=1) + "\n").encode())
    write_whole(out / "labelling.xml", labelling_config(classes).encode())
