"""What Label Studio exports, as images and labels of a run and as recorded answers.

The files in tests/label_studio were exported by Label Studio 1.23.2: some tasks of a project that began as an export of
ours. Of its annotations one was changed on its page, and a second user made others.
"""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from aal.annotators.recorded import Answer, Answers
from aal.app.data import open_set, prepare
from aal.config.errors import UserError
from aal.config.loading import resolve
from aal.label_studio import Annotation, images, read_export

pytestmark = pytest.mark.unit
EXPORTED = pathlib.Path(__file__).parent / "label_studio"
NAMES = ["a-21.jpg", "b-13.jpg", "trip 1/b-01.jpg", "a-07.jpg"]


@pytest.fixture
def data_dir(tmp_path: pathlib.Path) -> pathlib.Path:
    """The images of the exported tasks, and another."""
    for number, name in enumerate([*NAMES, "other.jpg"]):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (60 * number, 0, 0)).save(path)
    return tmp_path / "photos"


@pytest.mark.parametrize(("file", "of_two"), [("project.json", "finch"), ("project-min.json", "robin")])
def test_an_exported_project_is_an_image_set(data_dir: pathlib.Path, file: str, of_two: str) -> None:
    found = images(data_dir, str(EXPORTED / file))
    assert found["images"] == [str(data_dir / name) for name in NAMES]
    assert found["labels"] == [of_two, "robin", "robin", None], "of two answers that differ, the first in the file"
    options = {"export": str(EXPORTED / file), "classes": ["robin", "finch"]}
    tree = {"data_type": "aal.label_studio:images", "data_dir": str(data_dir), "image_size": 32, "models": "cnn"}
    prepared = open_set(prepare(resolve({**tree, "data_options": options}, "test")))
    assert np.asarray(prepared.labels).tolist() == [int(of_two == "finch"), 0, 0, -1]


def test_people_and_times_come_back() -> None:
    found = read_export(EXPORTED / "project.json", NAMES.__contains__)
    assert found == {
        NAMES[0]: [Annotation("bob", "finch", 0.548), Annotation("ada", "robin", 7.768)],
        NAMES[1]: [Annotation("ada", "robin", 0.637), Annotation("2", "robin", 3.291)],
        NAMES[2]: [
            Annotation("bob", "robin", 0.595),
            Annotation("ada", "robin", 0.715),
            Annotation("2", "robin", 1.765),
        ],
        NAMES[3]: [],
    }
    least = read_export(EXPORTED / "project-min.json", NAMES.__contains__)
    for name in NAMES:
        assert sorted(one[1:] for one in least[name]) == sorted(one[1:] for one in found[name])
    assert {one.annotator for annotations in least.values() for one in annotations} == {"1", "2"}


def test_an_exported_project_is_answers_of_a_run() -> None:
    answers = Answers(str(EXPORTED / "project.json"), ["finch", "robin"], [*NAMES, "other.jpg"], 1.0, len(NAMES) + 1)
    assert answers.names == ["2", "ada", "bob"] and answers.number == 7
    assert answers.of(0) == [Answer(2, 0, 0.548), Answer(1, 1, 7.768)] and not answers.of(3)
    with pytest.raises(UserError, match=r"annotators\.answers: .*'robin' is none of the 2 classes"):
        Answers(str(EXPORTED / "project.json"), ["finch", "gull"], NAMES, 1.0, len(NAMES))
    with pytest.raises(UserError, match=r"annotators\.answers: .*task 2: '.*b-13.jpg' is not among the images"):
        Answers(str(EXPORTED / "project.json"), ["finch", "robin"], NAMES[:1], 1.0, 1)


def test_what_recorded_answers_cannot_be_is_named_by_its_image(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "project.json"
    for choice, seconds, text in [
        ("bird", 1, "'bird' is none of the 1 classes"),
        ("finch", -3, "seconds -3.0 must be"),
    ]:
        file.write_text(json.dumps([{"image": "a-21.jpg", "choice": choice, "lead_time": seconds, "annotator": 1}]))
        with pytest.raises(UserError, match=rf"annotators\.answers: .*project.json: a-21.jpg: {text}"):
            Answers(str(file), ["finch"], NAMES, 1.0, len(NAMES))


def test_annotations_of_unknown_people_are_of_different_ones(tmp_path: pathlib.Path) -> None:
    made = {"type": "choices", "value": {"choices": ["finch"]}}
    cancelled = {"was_cancelled": True, "result": []}
    project = [
        {"image": "b-13.jpg", "choice": "finch"},
        {"data": {"image": "a-21.jpg"}, "annotations": [{"result": [made]}, cancelled, {"result": [made]}]},
        {"image": "b-13.jpg", "choice": "finch", "annotator": {}},
    ]
    file = tmp_path / "project.json"
    file.write_text(json.dumps(project))
    found = read_export(file, NAMES.__contains__)
    assert [one.annotator for one in found[NAMES[0]]] == ["unknown 2.1", "unknown 2.3"]
    assert [one.annotator for one in found[NAMES[1]]] == ["unknown 1.1", "unknown 3.1"]
    answers = Answers(str(file), ["finch"], NAMES, 1.0, len(NAMES))
    assert len({one.annotator for one in [*answers.of(0), *answers.of(1)]}) == 4


def test_other_forms_of_addresses_people_and_choices(data_dir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    both = {"choices": ["finch", "robin"]}
    made = {"type": "choices", "value": both}
    project = [
        {
            "data": {"image": "/data/upload/3/1a2b3c4d-a-21.jpg"},
            "annotations": [{"result": [made], "completed_by": {"email": "e"}}],
        },
        {"image": "s3://bucket/trip%201/b-01.jpg", "choice": both, "annotator": "f"},
    ]
    file = tmp_path / "project.json"
    file.write_text(json.dumps(project))
    found = read_export(file, lambda path: (data_dir / path).is_file())
    assert found == {NAMES[0]: [Annotation("e", "finch", None)], NAMES[2]: [Annotation("f", "finch", None)]}
    assert images(data_dir, str(file))["labels"] == ["finch", "finch"]


@pytest.mark.parametrize("choice", [[], {"choices": []}, None])
def test_an_annotation_without_a_choice_is_none(data_dir: pathlib.Path, tmp_path: pathlib.Path, choice: object) -> None:
    made = {"type": "choices", "value": {"choices": []}}
    project = [
        {"data": {"image": "a-21.jpg"}, "annotations": [{"result": [made], "completed_by": 1}]},
        {"image": "b-13.jpg", "choice": choice, "annotator": 1},
    ]
    file = tmp_path / "project.json"
    file.write_text(json.dumps(project))
    assert read_export(file, NAMES.__contains__) == {NAMES[0]: [], NAMES[1]: []}
    assert images(data_dir, str(file))["labels"] == [None, None]


def test_mistakes_in_an_export_are_named(data_dir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "project.json"
    for content, text in [
        ([{"data": {"image": "../../../etc/passwd"}}], r"task 1: '../../../etc/passwd' is not among the images"),
        ({"tasks": []}, "is no list of tasks"),
        ([{"data": {}}], "task 1: has no image"),
    ]:
        file.write_text(json.dumps(content))
        with pytest.raises(UserError, match=text):
            images(data_dir, str(file))
