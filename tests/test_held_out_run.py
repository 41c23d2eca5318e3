"""A run that begins without a label: people give it its test set, and it goes on with that after a break."""

import contextlib
import pathlib
import re
import threading

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from aal.app import data
from aal.app.main import wire
from aal.config.loading import load
from aal.engines.base import Plan, RunResult, RunStatus
from aal.engines.local.engine import LocalEngine
from aal.reporting.progress import Progress
from aal.storage.resume_state import take_over
from aal.web.people import invitations
from bench.visitors import Visitor, free_port
from tests.builders import query, wait_for
from tests.test_runs import answered

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]
IMAGES, VALIDATED = 220, 20
NAMES = ("ada", "bob")


def test_people_label_the_test_set_and_a_resumed_run_goes_on_with_it(tmp_path: pathlib.Path) -> None:
    photos, run, port, digits = tmp_path / "photos", tmp_path / "run", free_port(), load_digits()
    photos.mkdir()
    run.mkdir()
    for number, image in enumerate(digits.images[:IMAGES]):
        Image.fromarray((15 * image).astype(np.uint8)).save(photos / f"{number:03d}.png")
    words = [
        *(f"data_dir={photos}", f"prepared_dir={tmp_path / 'prepared'}", 'classes=["0","1","2","3","4","5","6","7"]'),
        *(f"people.port={port}", "people.annotators=[ada,bob]", "image_size=8", "models=cnn", "worker_num=1"),
        *("training.epochs=2", "training.batch_size=32", "training.validate_after=0", "server_train_threshold=40"),
    ]
    settings = load("label.yaml", words)
    images = data.open_set(data.prepare(settings))
    settings, _ = data.fit_to(images, settings)
    partition = data.split(images, settings, 1)
    (run / "models").mkdir()
    (run / "config.yaml").write_text("")
    data.save_split(partition, run / "split.npz")
    invitations(settings, run)
    assert (len(partition.held_out.test), len(partition.held_out.validation)) == (22, 22)

    told = (digits.target % 8).tolist()

    def stop_early() -> None:
        wait_for(lambda: answered(run) > 90)
        supervisor = Visitor(run, port, "supervisor", told, 0.02, threading.Event())
        with contextlib.closing(supervisor):
            supervisor._find_link()
            supervisor._until_done("POST", "/api/stop", {})

    stopping = threading.Thread(target=stop_early)
    stopping.start()
    first = labelled(wire(settings, run, images, partition, None), port, told)
    stopping.join(60)
    assert first.status is RunStatus.INTERRUPTED, first
    state = take_over(run / "run.db")
    assert state is not None and 90 < len(state.labels) < IMAGES
    partition = data.split_again(run, images, settings, 1, has_begun=True)
    last = labelled(wire(settings, run, images, partition, state), port, told)
    assert last.status is RunStatus.FINISHED, last

    purposes = dict(query(run, "SELECT item, held_out FROM examples WHERE held_out IS NOT NULL"))
    assert sorted(purposes) == sorted(partition.held_out.ids.tolist())
    order = [item for (item,) in query(run, "SELECT item FROM labels WHERE label IS NOT NULL ORDER BY arrival")]
    assert sorted(order) == list(range(IMAGES)), "every image has its label"
    strategies = "SELECT DISTINCT strategy, version IS NULL, held_out IS NULL FROM offers JOIN examples USING (item)"
    assert ("held out", 1, 0) in (found := query(run, strategies)) and all(row[2] or row[1] for row in found)
    trained = {int(job): int(labels) for labels, job in re.findall(r"trains on (\d+) labels \(job (\d+)\)", log(run))}
    tested = dict(query(run, "SELECT version, sum(images) FROM confusion GROUP BY version"))
    models = query(run, "SELECT version, ticket, labels, test_accuracy, val_accuracy FROM models")
    assert len(models) > 1 and models[-1][2] == IMAGES and tested[models[-1][0]] == 22
    for version, job, labels, accuracy, validated in models:
        held_out = [purposes[item] for item in order[:labels] if item in purposes]
        assert trained[job] == labels - len(held_out), "nothing that is held out is trained on"
        assert tested.get(version, 0) == held_out.count("test") and (accuracy is None) == (version not in tested)
        assert (validated is None) == (held_out.count("validation") < VALIDATED)
    assert {validated is None for *_, validated in models} == {True, False}


def labelled(plan: Plan, port: int, told: list[int]) -> RunResult:
    """Lets a run go on while people label; how it ends."""
    stop = threading.Event()
    people = [Visitor(plan.run, port, name, told, 0.02, stop) for name in NAMES]
    for person in people:
        person.start()
    try:
        return LocalEngine().run(plan, Progress(None))
    finally:
        stop.set()
        for person in people:
            person.join(60)


def log(run: pathlib.Path) -> str:
    return (run / "log.txt").read_text()
