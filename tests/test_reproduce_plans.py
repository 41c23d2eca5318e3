"""What is run for a figure, and how far it is."""

import dataclasses
import itertools
import pathlib

import pytest

from aal.app import main
from aal.app.data import imagined_set, split
from aal.app.experiments.aal_2021 import published
from aal.app.experiments.aal_2021.plans import SCALES, Run, Setup, plan_of, several, single, timed
from aal.app.experiments.aal_2021.published import BATCHES, DATA_TYPES, METHODS, PUBLISHED, STRATEGIES
from aal.app.experiments.aal_2021.results import read_results
from aal.config.errors import UserError
from aal.config.loading import dump, load, resolve
from aal.config.settings import Settings
from aal.coordination.schedules import schedule_of
from aal.reporting.progress import Progress
from aal.sweep import add_seconds, claimed_folder, seconds_taken
from tests.builders import finished_run

pytestmark = pytest.mark.unit
TINY = Setup("tiny", "digits", "data/downloads", 2, ("random", "AAL"), (5000,))


def pool_bound(settings: Settings) -> int | None:
    bound: int | None = schedule_of(settings).pool_bound(settings)
    return bound


def setups() -> list[Setup]:
    kinds = [(scale, data_type) for scale in SCALES for data_type in DATA_TYPES]
    return [Setup(*kind, "data/downloads", 1, STRATEGIES, BATCHES) for kind in [*kinds, ("tiny", "digits")]]


@pytest.mark.parametrize("setup", setups(), ids=lambda setup: f"{setup.scale}-{setup.data_type}")
def test_every_plan_is_sound_and_in_whole_rounds(setup: Setup) -> None:
    plan = [
        *plan_of("figure2", setup),
        *plan_of("figure3", setup),
        *plan_of("table1", setup),
        *plan_of("figure4", setup, {"relative_std": 0.0}),
    ]
    for run in plan:
        settings = run.settings
        assert settings.engine == "simulated"
        assert settings.budget % settings.server_train_threshold == 0
        assert run.grid[0] == settings.initial_size and run.grid[-1] == settings.initial_size + settings.budget
        assert settings.server_train_threshold % settings.round_size == 0


def test_the_same_name_means_the_same_settings() -> None:
    setup = Setup("cpu", "cifar-10", "here", 2, STRATEGIES, BATCHES)
    plan = [
        *plan_of("figure2", setup),
        *plan_of("figure3", setup),
        *plan_of("table1", setup),
        *plan_of("figure4", setup, {"relative_std": 0.0}),
    ]
    by_name: dict[str, Run] = {}
    for run in plan:
        assert by_name.setdefault(run.name, run) == run
    assert {run.name for run in plan_of("figure2", setup)} < {run.name for run in plan_of("figure3", setup)}


def test_the_papers_own_settings() -> None:
    paper = Setup("paper", "cifar-100", "data", 1, METHODS, BATCHES)
    one = single(paper, "AAL", "async", 2500, seed=4).settings
    assert (one.initial_size, one.val_size, one.worker_num, one.seed, one.max_staleness) == (10_000, 5000, 10, 4, 1)
    assert (one.query_batch, one.server_train_threshold, one.worker_query_num) == (250, 2500, 4)
    assert (one.assignment_type, one.query_strategy, one.models, one.recipe) == ("RA", None, ["vgg16"], "paper")
    assert (one.training.learning_rate, one.training.epochs) == (1e-4, 1000)
    four = several(paper, "margin", 4, seed=0).settings
    assert (four.server_num, four.query_batch, four.worker_query_num, four.server_train_threshold) == (4, 50, 40, 2500)
    assert (four.budget, four.assignment_type, four.query_strategy) == (20_000, "DA", "margin")
    for servers in published.SERVERS:  # the published code's bound, and as much room in S, for any number of servers
        run = several(paper, "margin", servers, seed=0)
        assert (run.bound, run.settings.max_staleness, pool_bound(run.settings)) == (1, 1, 5000)
    times = timed(paper, "paper", None, "sync", 1, 10_000)
    assert (times.settings.compute, times.settings.mode, times.grid[:2]) == ("none", "sync", [10_000, 20_000])
    assert times.settings.annotators.seconds_per_label == 0


def test_a_fifth_of_it_is_a_fifth() -> None:
    small, paper = (Setup(scale, "cifar-10", "data", 1, METHODS, BATCHES) for scale in ("cpu", "paper"))
    for batch in BATCHES:
        grids = [single(setup, "AAL", "async", batch, 0).grid for setup in (small, paper)]
        assert [5 * labels for labels in grids[0]] == grids[1]
    for servers in published.SERVERS:
        grids = [several(setup, "AAL", servers, 0).grid for setup in (small, paper)]
        assert [5 * labels for labels in grids[0]] == grids[1]
        s = several(small, "AAL", servers, 0).settings
        assert (s.max_staleness, pool_bound(s)) == (1, 1000)
        # The round of four servers, 500 labels, is given while the middle training goes on: 1000 + 4000 / 2 images.
        training = 3000 * s.training.epochs * s.costs.per_image_trained
        assert 500 * s.annotators.seconds_per_label / s.annotators.number == pytest.approx(training, 0.01)
    # A round is labelled while the middle training goes on: (1000 + 2 * 1000) images, 20 epochs.
    s = single(small, "AAL", "async", 5000, 0).settings
    training = 3000 * s.training.epochs * s.costs.per_image_trained
    assert s.server_train_threshold * s.annotators.seconds_per_label / s.annotators.number == pytest.approx(
        training, 0.01
    )


def test_measured_times_are_of_the_scales_network_at_the_papers_label_counts() -> None:
    costs = {"per_image_trained": 1.0, "relative_std": 0.0}
    for scale, network, epochs in (("cpu", "vgg16_bn", 20), ("paper", "vgg16", 1000)):
        run = timed(Setup(scale, "cifar-100", "data", 1, (), ()), "measured", costs, "async", None, 1000)
        s = run.settings
        assert (s.models, s.training.epochs, s.costs.per_image_trained, run.grid[1]) == ([network], epochs, 1.0, 11_000)
        assert s.max_staleness is None


@pytest.mark.parametrize("data_type", DATA_TYPES)
def test_imagined_sets_leave_as_many_images_as_the_papers(data_type: str) -> None:
    run = timed(Setup("cpu", data_type, "data", 1, (), ()), "paper", None, "async", 1, 1000)
    parts = split(imagined_set(run.settings, run.config["examples"]), run.settings, run.settings.worker_num)
    assert len(parts.validation) + len(parts.initial) + sum(map(len, parts.shards)) == 50_000


def test_the_fewer_servers_the_older_the_models_that_choose(tmp_path: pathlib.Path) -> None:
    found = {}
    for servers in published.SERVERS:
        run = several(TINY, "AAL", servers, 0)
        settings = resolve({**run.config, "compute": "none", "examples": 3000}, run.name)
        main.start(settings, str(tmp_path / run.name), Progress(None))
        found[servers] = read_results([run], tmp_path)[0]
    for fewer, more in itertools.pairwise(found.values()):
        assert fewer.unseen > more.unseen
        assert fewer.by_initial > more.by_initial
    assert found[4].by_initial < 0.5


def test_the_published_numbers_have_the_shape_of_the_plans() -> None:
    for data_type, batch, method in itertools.product(DATA_TYPES, BATCHES, METHODS):
        rounds = PUBLISHED["settings"][data_type]["rounds"][batch]
        curve = [published.accuracy(data_type, batch, method, number) for number in range(rounds + 2)]
        assert None not in curve[:-1] and curve[-1] is None
    assert published.accuracy("digits", 1000, "AAL", 1) is None
    assert published.accuracy("cifar-10", 5000, "AAL", 4) == 0.868
    assert published.published("figure4", "mini-imagenet", "async", 10_000) == [150, 175]
    assert published.published("table1", "cifar-10", "AAL", 4) == 0.843
    assert published.published("table1", "digits", "AAL", 4) is None
    assert set(PUBLISHED) == {"settings", "figure2", "figure4", "table1"}


@pytest.mark.parametrize("data_type", DATA_TYPES)
def test_the_configs_of_the_paper_say_what_was_published(data_type: str) -> None:
    about, short = PUBLISHED["settings"][data_type], data_type.replace("-", "")
    for name in [*(f"batch{batch}" for batch in BATCHES), *(f"servers{servers}" for servers in published.SERVERS)]:
        settings = load(f"paper/{short}-{name}")
        assert (settings.data_type, settings.initial_size, settings.seed) == (data_type, about["initial"], 0)
        changed = {key: getattr(settings.training, key) for key in about["training"]}
        assert changed == about["training"] and settings.recipe == "paper"
        if name.startswith("batch"):
            rounds, batch = settings.worker_query_num, settings.server_train_threshold
            assert (batch, rounds, settings.round_size) == (int(name[5:]), about["rounds"][batch], batch)
        else:
            assert (settings.server_num, settings.budget) == (int(name[7:]), 20_000)
    settings = load(f"paper/{short}-batch1000", ["data_dir=data/downloads"]).model_copy(update={"name": None})
    setup = Setup("paper", data_type, settings.data_dir, 1, ("AAL",), BATCHES)  # absolute, as reproduce gives it
    assert settings == single(setup, "AAL", "async", 1000, 0).settings


def test_a_run_is_finished_when_its_record_says_so(tmp_path: pathlib.Path) -> None:
    run = single(TINY, "AAL", "async", 5000, 0)
    folder = tmp_path / run.name
    assert not run.is_finished(folder)
    folder.mkdir()
    (folder / ".tmp-config.yaml-7").write_text("seed")
    assert not run.is_finished(folder)
    (folder / "config.yaml").write_text(dump(run.settings))
    assert not run.is_finished(folder)
    finished_run(run, tmp_path, [0.1, 0.2], ended="interrupted")
    assert not run.is_finished(folder)
    finished_run(run, tmp_path, [0.1, 0.2, 0.3, 0.4, 0.5])
    assert run.is_finished(folder)


def test_a_run_with_other_settings_is_not_mixed_in(tmp_path: pathlib.Path) -> None:
    run = single(TINY, "AAL", "async", 5000, 0)
    folder = finished_run(run, tmp_path, [0.1])
    elsewhere = dataclasses.replace(run, config={**run.config, "data_dir": "there", "devices": {"servers": "auto"}})
    assert elsewhere.is_finished(folder)
    other = dataclasses.replace(run, config={**run.config, "val_size": 50, "width": 0.5})
    with pytest.raises(UserError, match="was run with another val_size, width than is planned; use another --out"):
        other.is_finished(folder)


def test_seconds_add_up_and_two_programs_do_not_share_a_folder(tmp_path: pathlib.Path) -> None:
    out = tmp_path / "out"
    with claimed_folder(out):
        add_seconds(out, "one", 1.5)
        add_seconds(out, "one", 2.0)
        add_seconds(out, "figure2", 1.0)
        with pytest.raises(UserError, match="another program works in this folder"), claimed_folder(out):
            pass
    assert seconds_taken(out) == {"one": 3.5, "figure2": 1.0}
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be used"), claimed_folder(tmp_path / "file"):
        pass
