"""Labels that are given out: as a table, in class folders, for COCO's readers and for the library datasets."""

import csv
import json
import pathlib
import sqlite3
from typing import Any

import numpy as np
import pytest
from PIL import Image

from aal import export as command
from aal.annotators.recorded import Answer, Answers
from aal.app.data import open_set, prepare
from aal.app.main import start
from aal.config.errors import UserError
from aal.config.loading import resolve
from aal.export import export
from aal.label_studio import images
from aal.reporting.labels import COLUMNS, read_labels
from tests.builders import make_run

pytestmark = pytest.mark.unit
SIZES = {"worker_num": 2, "worker_query_num": 3, "query_batch": 10, "server_train_threshold": 30}
SMALL = {**SIZES, "max_staleness": 1, "initial_size": 2, "val_size": 0, "models": "cnn"}
NAMES = ["T-shirt/top", "T-shirt_top"]  # both would be the same folder


def labelled(tmp_path: pathlib.Path, config: dict[str, Any], classes: list[str]) -> pathlib.Path:
    """A run with the initial labels 1 and 4, and with 0 and 3 bought in this order; 5 is not answered."""
    settings = resolve({**SMALL, **config, "prepared_dir": str(tmp_path / "prepared")}, "test")
    folder = prepare(settings)
    truth = open_set(folder).labels
    return make_run(
        tmp_path / "run",
        settings.model_dump(),
        examples=[(i, "initial" if i in (1, 4) else "shard", None, int(truth[i])) for i in range(6)],
        offers=[(0, 1, "margin", 0, 0, 9.0), (3, 0, "entropy", 1, 1, 5.0), (5, 0, "entropy", 1, 1, 5.0)],
        waits=[(6, 9.0, 9.0, 0), (7, 5.0, 5.0, 3)],
        answers=[(0, 0, 6, 1, 9.5), (1, 3, 7, 0, 9.75)],
        selections=[(1, 2, "margin", 0, 1, 8.0, 9.0), (0, 1, "entropy", 1, 2, 4.0, 5.0)],
        meta=[("images", folder.name), ("classes", json.dumps(classes))],
    )


@pytest.fixture
def run(tmp_path: pathlib.Path) -> pathlib.Path:
    """Of digits, which have no files."""
    return labelled(tmp_path, {"data_type": "digits", "data_dir": str(tmp_path)}, [*NAMES, *"23456789"])


@pytest.fixture
def photos(tmp_path: pathlib.Path) -> pathlib.Path:
    """Of files of several sizes in class folders, whose paths are on record."""
    names = [f"{label}/{number} of 3.png" for label in ("cat", "dog") for number in range(3)]
    for number, name in enumerate(names):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40 + number, 20), (number, 0, 0)).save(path)
    config = {"data_type": "folder", "data_dir": str(tmp_path / "photos"), "image_size": 32}
    run = labelled(tmp_path, config, ["cat", "dog"])
    with sqlite3.connect(run / "run.db") as db:
        if "path" not in {row[1] for row in db.execute("PRAGMA table_info(examples)")}:
            db.execute("ALTER TABLE examples ADD COLUMN path TEXT")
        db.executemany("UPDATE examples SET path = ? WHERE item = ?", [(name, i) for i, name in enumerate(names)])
    db.close()
    return run


def size_of(path: pathlib.Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_the_table_holds_every_label_in_order(run: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([str(run), "--format", "csv"]) == 0
    assert capsys.readouterr() == (f"{run / 'labels.csv'}\n", "4 labels, 2 of them initial\n")
    with (run / "labels.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    assert head == COLUMNS
    assert [row[0] for row in rows] == ["1", "4", "0", "3"]
    assert rows[0] == ["1", "", "1", NAMES[1], "initial", "", "", "", "", "", ""]
    # Batch 2 of 2 workers with 10 each begins after 40 labels, in round 1 of 30; batch 1 after 20, in round 0.
    assert rows[2] == ["0", "", "1", NAMES[1], "annotator", "6", "9.5", "margin", "0", "1", "1.0"]
    assert rows[3] == ["3", "", "0", NAMES[0], "annotator", "7", "9.75", "entropy", "1", "0", "1.0"]


def test_each_batch_of_mode_sync_is_a_round(run: pathlib.Path) -> None:
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("mode: async", "mode: sync"))
    assert [row["round"] for row in read_labels(run)] == [None, None, 2, 1]


def test_images_without_files_become_png(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    out = export(run, "folder", tmp_path / "out")
    found = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*"))
    assert found == ["4/000004.png", "T-shirt_top-0/000003.png", "T-shirt_top-1/000000.png", "T-shirt_top-1/000001.png"]
    with Image.open(out / "4" / "000004.png") as image:
        pixels = np.asarray(image)
    settings = resolve({**SMALL, "data_type": "digits", "data_dir": str(tmp_path)}, "test")
    prepared = open_set(prepare(settings.model_copy(update={"prepared_dir": str(tmp_path / "prepared")})))
    assert (pixels == prepared.images[4].squeeze()).all() and pixels.any()


def test_files_are_copied_as_they_are(photos: pathlib.Path, tmp_path: pathlib.Path) -> None:
    out = export(photos, "folder", tmp_path / "out")
    found = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*"))
    # 0 is a cat that an annotator called a dog, 3 the other way round.
    names = ["cat/000001-1_of_3.png", "cat/000003-0_of_3.png", "dog/000000-0_of_3.png", "dog/000004-1_of_3.png"]
    assert found == names
    assert (out / names[2]).read_bytes() == (tmp_path / "photos" / "cat" / "0 of 3.png").read_bytes()


def test_coco_names_the_source_files(photos: pathlib.Path) -> None:
    out = export(photos, "coco")
    assert [path.name for path in out.iterdir()] == ["annotations.json"]
    coco = json.loads((out / "annotations.json").read_text())
    assert coco["categories"] == [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]
    assert coco["images"][1] == {"id": 4, "file_name": "dog/1 of 3.png", "width": 44, "height": 20}
    pairs = {(one["image_id"], one["category_id"]) for one in coco["annotations"]}
    assert pairs == {(1, 0), (4, 1), (0, 1), (3, 0)}
    assert len({one["id"] for one in coco["annotations"]}) == 4


def test_coco_writes_images_that_have_no_file(run: pathlib.Path) -> None:
    out = export(run, "coco")
    for image in json.loads((out / "annotations.json").read_text())["images"]:
        assert size_of(out / image["file_name"]) == (image["width"], image["height"]) == (8, 8)


def test_huggingface_gets_an_imagefolder(photos: pathlib.Path) -> None:
    out = export(photos, "huggingface")
    with (out / "metadata.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["cat", "dog", "dog", "cat"]
    assert [row["path"] for row in rows] == [f"{name} of 3.png" for name in ("cat/1", "dog/1", "cat/0", "dog/0")]
    assert [size_of(out / row["file_name"])[0] for row in rows] == [41, 44, 40, 43]


def test_single_answers_are_given_out_as_a_run_takes_them(run: pathlib.Path) -> None:
    with export(run, "answers").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {"item": "0", "path": "", "annotator": "6", "label": NAMES[1], "seconds": "0.500"}
    classes = [*NAMES, *"23456789"]
    answers = Answers(str(run / "answers.csv"), classes, None, 1.0, 1797)
    assert answers.names == ["6", "7"] and answers.of(3) == [Answer(1, 0, 4.75)] and not answers.of(1)


def test_label_studio_gets_every_answer_and_what_is_to_be_labelled(photos: pathlib.Path) -> None:
    with sqlite3.connect(photos / "run.db") as db:
        db.execute("INSERT INTO waits VALUES(8, 5.0, 5.0, 0)")
        db.execute("INSERT INTO answers VALUES(2, 0, 8, NULL, 9.5, 'cannot tell')")
    db.close()
    people = [{"annotator": 6, "name": "ada", "role": "annotator", "token": "a"}]
    people.append({"annotator": 7, "name": "bob@example.org", "role": "annotator", "token": None})
    (photos / "people.json").write_text(json.dumps(people))
    out = export(photos, "labelstudio")
    tasks = json.loads((out / "tasks.json").read_text())
    names = ["cat/1 of 3", "dog/1 of 3", "cat/0 of 3", "dog/0 of 3", "cat/2 of 3", "dog/2 of 3"]
    paths = [f"/data/local-files/?d=photos/{name.replace(' ', '%20')}.png" for name in names]
    assert [task["data"] for task in tasks] == [{"image": path} for path in paths]
    first, bought, known, waiting = tasks[0], tasks[2], tasks[3], tasks[5]
    one, other = bought["annotations"]
    assert one == {
        **{"lead_time": 0.5, "was_cancelled": False, "ground_truth": False},
        "result": [{**of("dog"), "meta": {"annotator": "ada"}}],
    }
    assert other == {"lead_time": 4.5, "was_cancelled": True, "ground_truth": False, "result": []}
    assert known["annotations"][0]["completed_by"] == {"email": "bob@example.org"}
    assert bought["predictions"] == [{"model_version": "aal", "score": 1.0, "result": [of("dog")]}]
    assert first["annotations"] == [{"result": [of("cat")], "was_cancelled": False, "ground_truth": False}]
    assert not first["predictions"] and not waiting["annotations"] and not waiting["predictions"]
    assert '<Choice value="cat"/>' in (out / "labelling.xml").read_text()
    found = images(photos.parent / "photos", str(out / "tasks.json"))
    assert found["labels"] == ["cat", "dog", "dog", "cat", None, None]
    assert found["images"][2] == str(photos.parent / "photos" / "cat" / "0 of 3.png")
    with export(photos, "answers").open(newline="") as file:
        assert [row["annotator"] for row in csv.DictReader(file)] == ["ada", "bob@example.org"]


def test_what_a_supervisor_decided_is_given_out_in_the_place_of_what_others_said(photos: pathlib.Path) -> None:
    with sqlite3.connect(photos / "run.db") as db:
        db.execute("INSERT INTO answers VALUES(2, 0, 9, 1, 9.9, 'correction'), (3, 0, 9, 0, 9.9, 'correction')")
        db.execute("INSERT INTO answers VALUES(4, 3, 9, NULL, 9.9, 'correction')")
        db.execute("UPDATE labels SET label = iif(item = 0, 0, NULL)")
    db.close()
    with export(photos, "answers").open(newline="") as file:
        rows = [(row["item"], row["annotator"], row["label"], row["seconds"]) for row in csv.DictReader(file)]
    assert rows == [("0", "9", "cat", "")], "the last word alone; the other image is to have no label"
    out = export(photos, "labelstudio")
    found = images(photos.parent / "photos", str(out / "tasks.json"))
    names = [pathlib.Path(path).relative_to(photos.parent / "photos").as_posix() for path in found["images"]]
    assert dict(zip(names, found["labels"], strict=True)) == {
        **{"cat/0 of 3.png": "cat", "cat/1 of 3.png": "cat", "dog/1 of 3.png": "dog"},
        **dict.fromkeys(("dog/0 of 3.png", "cat/2 of 3.png", "dog/2 of 3.png")),
    }


@pytest.mark.parametrize("is_damaged", [True, False])
def test_people_go_by_numbers_where_their_names_cannot_be_read(
    photos: pathlib.Path, is_damaged: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    people = photos / "people.json"
    if is_damaged:
        people.write_text('[{"annotator": 6}')
    else:
        people.mkdir()  # as good as a file that its owner alone may read, which root may
    for kind in ("csv", "answers", "labelstudio"):
        assert command.main([str(photos), "--format", kind]) == 0
        note, count = capsys.readouterr().err.splitlines()
        reason = "is damaged" if is_damaged else "cannot be read: Is a directory"
        assert note == f"{people}: {reason}; people go by their numbers" and count.startswith("4 labels")
    with (photos / "labels.csv").open(newline="") as file:
        assert [row["annotator"] for row in csv.DictReader(file)] == ["", "", "6", "7"]


def of(name: str) -> dict[str, Any]:
    """A choice, as Label Studio has it."""
    return {"from_name": "choice", "to_name": "image", "type": "choices", "value": {"choices": [name]}}


@pytest.mark.parametrize("kind", ["folder", "mini-imagenet", "torchvision:EuroSAT", "scans_by_path:load"])
def test_every_label_of_a_run_leads_to_its_file(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    root, size = tmp_path / "images", 84 if kind == "mini-imagenet" else 32
    inner = {"folder": "", "mini-imagenet": "mini-imagenet/train", "torchvision:EuroSAT": "eurosat/2750"}.get(kind, "")
    for number in range(60):
        path = root / inner / ("cat", "dog")[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (size, size), (number, 0, 0)).save(path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "scans_by_path.py").write_text(
        "def load(data_dir):\n    files = sorted(data_dir.rglob('*.png'))\n"
        "    return files, [file.parent.name for file in files]\n"
    )
    tree = {"data_type": kind, "data_dir": str(root), "models": "cnn", "engine": "simulated", "compute": "none"}
    run, result = start(resolve({**tree, "worker_num": 2, "worker_query_num": 4}, "test"), str(tmp_path / "run"))
    assert result.exit_code == 0
    pixels = open_set(prepare(resolve(tree, "test"))).images
    with (export(run, "csv")).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 12
    for row in rows:
        path = root / row["path"]
        assert path.parent.name == row["class"] and pixels[int(row["id"]), 0, 0, 0] == int(path.stem)
    for other in ("folder", "coco", "huggingface"):
        out = export(run, other)
        assert len([*out.rglob("*.png")]) == (0 if other == "coco" else len(rows))


def test_mistakes_are_reported(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="is not an empty directory"):
        export(run, "folder", run)
    with pytest.raises(UserError, match="no longer holds the images"):
        with sqlite3.connect(run / "run.db") as db:
            db.execute("UPDATE meta SET value = 'digits-0' WHERE key = 'images'")
        db.close()
        export(run, "folder", tmp_path / "out")
    empty = make_run(tmp_path / "empty")
    with pytest.raises(UserError, match="has no labels yet"):
        export(empty, "csv")
    with pytest.raises(UserError, match=r"config\.yaml"):
        export(tmp_path / "nothing", "csv")
