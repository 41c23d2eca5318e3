"""Settings: what is accepted, what is message, and that the configs of the repository are right."""

import pathlib
import subprocess
import sys
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aal.config.errors import UserError
from aal.config.loading import CONFIGS, dump, find_config, load, override, read_config, resolve
from aal.config.presets import PAPER_COSTS, RECIPES
from aal.coordination.schedules import schedule_of
from aal.coordination.schedules.asynchronous import Asynchronous
from aal.coordination.schedules.just_in_time import JustInTime
from aal.coordination.schedules.synchronous import Synchronous

pytestmark = pytest.mark.unit
ROOT = pathlib.Path(__file__).resolve().parent.parent


def problems(tree: dict[str, Any]) -> list[str]:
    with pytest.raises(UserError) as caught:
        resolve(tree, "my.yaml")
    return list(caught.value.problems)


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_is_right_and_explains_each_key(path: pathlib.Path) -> None:
    settings = load(str(path))
    assert settings.name == path.stem
    keys = [line for line in path.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert not [line for line in keys if " # " not in line]


def test_names_may_be_written_in_any_way() -> None:
    assert resolve({"data_type": "CIFAR10"}, "x").data_type == "cifar-10"
    assert resolve({"data_type": "Mini_ImageNet"}, "x").data_type == "mini-imagenet"
    for name, meant in [("UncertaintyEntropy", "entropy"), ("Uncertainty", "least_confidence"), ("Random", "random")]:
        tree = {"data_type": "cifar-10", "assignment_type": "DA", "query_strategy": name}
        assert resolve(tree, "x").query_strategy == meant


def test_a_recipe_is_a_group_that_single_settings_change() -> None:
    settings = resolve({"data_type": "cifar10", "recipe": "paper", "training": {"epochs": 3}}, "x")
    assert settings.training.model_dump() == {**RECIPES["paper"], "epochs": 3}


def test_what_is_null_or_left_out_is_left_open_for_the_images() -> None:
    tree = {"data_type": "folder", "models": "cnn", "val_size": None, "query_batch": 7, "training": {"flip": None}}
    settings = resolve(tree, "x")
    assert settings.left_open == {"val_size", "initial_size", "server_train_threshold"}
    assert settings.training.left_open == {"flip", "crop_padding"}
    paper = resolve({**tree, "recipe": "paper"}, "x").training
    assert paper.left_open == {"flip"} and paper.crop_padding == 0
    again = resolve(yaml.safe_load(dump(settings)), "x")
    assert again == settings and again.left_open == settings.left_open and len(again.training.left_open) == 2
    assert resolve({"data_type": "digits", "models": "cnn", "worker_num": 1}, "x").budget < 1000  # no contradiction yet
    assert problems({"data_type": "digits", "models": "cnn", "worker_num": 1, "server_train_threshold": 1000})


def test_all_mistakes_are_told_at_once_a_line_each() -> None:
    message = problems(
        {
            "data_typ": "cifar10",
            "data_type": "cifar10",
            "worker_num": "ten",
            "val_size": -1,
            "training": {"epochs": 0, "lr": 0.1},
            "annotators": {"error_rate": 1.5},
            "models": ["vgg17"],
            "assignment_type": "DA",
            "image_size": 64,
        }
    )
    text = "\n".join(message)
    for expected in (
        "my.yaml: data_typ: no such setting; did you mean data_type?",
        "my.yaml: worker_num: ",
        "my.yaml: val_size: ",
        "my.yaml: training.epochs: ",
        "my.yaml: training.lr: no such setting",
        "my.yaml: annotators.error_rate: ",
        "my.yaml: models: must be vgg16, ",
        "my.yaml: query_strategy: assignment_type DA needs one",
        "my.yaml: image_size: ",
    ):
        assert expected in text
    assert len(message) == 9 and all("\n" not in line for line in message)


@pytest.mark.parametrize(
    ("tree", "key"),
    [
        ({"server_train_threshold": 10**6}, "server_train_threshold"),
        ({"query_strategy": "margin"}, "query_strategy"),
        ({"query_pool_size": 1}, "query_pool_size"),
        ({"mode": "sync", "query_pool_size": 500}, "query_pool_size"),
        ({"test_share": 0.1}, "test_share"),
        ({"data_type": "digits", "models": "vgg16", "initial_size": 10}, "models"),
        ({"engine": "simulated", "devices": {"worker_processes": 2}}, "devices.worker_processes"),
        ({"initial_size": 0, "max_staleness": 1}, "initial_size"),
        ({"initial_size": 0, "mode": "sync"}, "initial_size"),
        ({"withdraw_stale": True, "max_staleness": None}, "withdraw_stale"),
        ({"withdraw_stale": True, "mode": "sync"}, "withdraw_stale"),
    ],
)
def test_contradictions_are_reported(tree: dict[str, Any], key: str) -> None:
    (message,) = problems({"data_type": "cifar-10", **tree})
    assert message.startswith(f"my.yaml: {key}: ")


@pytest.mark.parametrize("value", ["car", -1, 10**10, 1.5, True, [1]])
def test_a_bound_that_is_none_is_refused_in_one_line(value: Any) -> None:
    (message,) = problems({"data_type": "cifar-10", "max_staleness": value})
    assert message.startswith(
        "my.yaml: max_staleness: must be auto, a whole number from 0 to 1,000,000,000, or null, not "
    )


def test_the_papers_rules_are_still_there_and_just_in_time_is_the_default() -> None:
    tree = {"data_type": "cifar-10"}
    assert resolve(tree, "x").max_staleness == "auto" and schedule_of(resolve(tree, "x")) is JustInTime
    for value in (0, 1, None):
        assert schedule_of(resolve({**tree, "max_staleness": value}, "x")) is Asynchronous
    assert schedule_of(resolve({**tree, "mode": "sync"}, "x")) is Synchronous
    assert resolve({**tree, "initial_size": 0}, "x").initial_size == 0


@pytest.mark.parametrize(
    ("assignment", "key"),
    [
        ("trainingg.epochs=3", "trainingg"),
        ("foo.bar.baz=1", "foo"),
        ("training.epochs=0", "training.epochs"),
        ("training={epochs: 0}", "training.epochs"),
    ],
)
def test_a_mistake_of_the_command_line_is_named_as_its_own(assignment: str, key: str) -> None:
    with pytest.raises(UserError) as error:
        load("digits.yaml", [assignment])
    (message,) = error.value.problems
    assert message.startswith(f"command line: {key}: ")


@pytest.mark.parametrize("role", ["server", "worker"])
def test_threads_that_no_machine_has_are_refused(role: str) -> None:
    (message,) = problems({"data_type": "digits", "models": "cnn", "devices": {f"{role}_threads": 10**9}})
    assert message == f"my.yaml: devices.{role}_threads: must be at most 1024, not 1000000000"


def test_costs_have_names(tmp_path: pathlib.Path) -> None:
    tree = {"data_type": "cifar10", "engine": "simulated"}
    assert resolve({**tree, "costs": "paper"}, "x").costs.model_dump(
        exclude={"relative_std", "measured", "client_factors"}
    ) == {
        **PAPER_COSTS["cifar-10"],
        "per_image_scored": 0.0,
    }
    assert resolve({**tree, "costs": "measured"}, "x").costs.measured
    assert resolve({**tree, "costs": {"per_selection": 3.0}}, "x").costs.per_selection == 3.0
    spread = resolve(override({**tree, "costs": "paper"}, ["costs.relative_std=0.2"]), "x").costs
    assert spread.relative_std == 0.2 and spread.per_selection == PAPER_COSTS["cifar-10"]["per_selection"]
    assert resolve(override(tree, ["costs=measured", "costs.relative_std=0.2"]), "x").costs.measured
    assert problems(override({**tree, "costs": "quick"}, ["costs.relative_std=0.2"]))[0].endswith("not quick")
    assert problems({**tree, "costs": "quick"}) == [
        "my.yaml: costs: must be paper (for cifar-10, cifar-100, mini-imagenet), measured or hold `key: value` lines, "
        "not quick"
    ]
    assert "costs: must be paper (for cifar-10" in problems({"data_type": "folder", "costs": "paper"})[0]
    assert problems({**tree, "costs": {"per_selection": -1.0}}) == [
        "my.yaml: costs.per_selection: must be at least 0.0, not -1.0"
    ]


def test_overrides_reach_into_groups_and_are_yaml() -> None:
    tree = override({"annotators": {"number": 3}}, ["annotators.number=5", "max_staleness=null", "training.epochs=1e1"])
    assert tree == {"annotators": {"number": 5}, "max_staleness": None, "training": {"epochs": 10.0}}
    assert override({}, ["training.learning_rate=1e-3"]) == {"training": {"learning_rate": 0.001}}
    with pytest.raises(UserError, match="form key=value"):
        override({}, ["epochs"])


def test_a_missing_config_names_the_nearest(tmp_path: pathlib.Path) -> None:
    assert find_config("digits") == CONFIGS / "digits.yaml"
    with pytest.raises(UserError, match=r"did you mean digits\.yaml"):
        find_config("digit.yaml")
    bad = tmp_path / "bad.yaml"
    bad.write_text("a: [1\nb: 2\n")
    with pytest.raises(UserError, match=r"bad\.yaml, line 2: is not YAML"):
        read_config(bad)
    bad.write_text("seed: 1\nseed: 2\n")
    with pytest.raises(UserError, match="seed is given twice"):
        read_config(bad)


def test_what_is_written_reads_back_the_same(tmp_path: pathlib.Path) -> None:
    settings = load("cifar10-cpu.yaml", ["seed=3"])
    path = tmp_path / "config.yaml"
    path.write_text(dump(settings))
    assert load(str(path)) == settings


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from(sorted(resolve({"data_type": "digits", "models": "cnn"}, "x").model_dump())) | st.text(
    max_size=6
)


@settings(max_examples=300)
@given(tree=st.dictionaries(keys, values, max_size=6))
@example(tree={"models": ""})
def test_any_tree_is_either_right_or_reported(tree: dict[str, Any]) -> None:
    try:
        resolve(tree, "x")
    except UserError as error:
        assert error.problems


@settings(max_examples=200)
@given(content=st.binary(max_size=60))
def test_any_bytes_are_either_read_or_reported(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "x.yaml"
    path.write_bytes(content)
    try:
        resolve(read_config(path), "x")
    except UserError as error:
        assert error.problems


def test_mistakes_are_told_before_torch_is_imported() -> None:
    code = (
        "import sys, main\n"
        "code = main.main(['--config', 'digits.yaml', 'worker_nun=3'])\n"
        "sys.exit(99 if 'torch' in sys.modules else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["error: command line: worker_nun: no such setting; did you mean worker_num?"]


def test_options_go_with_the_choice_that_is_replaced() -> None:
    tree = {"query_strategy": "mine:Own", "query_strategy_options": {"power": 2}}
    assert override(tree, ["query_strategy=random"]) == {"query_strategy": "random"}
    assert override(tree, ["query_strategy=mine:Own"]) == tree
    changed = override(tree, ["query_strategy=other:Own", "query_strategy_options.k=3"])
    assert changed["query_strategy_options"] == {"power": 2, "k": 3}
