"""What is refused although it has the right form: YAML that does harm, numbers and paths that make no sense."""

import pathlib
from typing import Any

import pytest

from aal.config.errors import UserError
from aal.config.loading import find_config, load, override, read_config, resolve
from aal.config.yaml_text import LONGEST_TEXT, parse

pytestmark = pytest.mark.unit
LETTERS = "abcdefghi"
BOMB = "".join(
    f"{one}: &{one} [{', '.join([f'*{before}' if before else 'x'] * 10)}]\n"
    for before, one in zip(["", *LETTERS], LETTERS, strict=False)
)


@pytest.mark.timeout(60)  # the bomb stands for a billion values
@pytest.mark.parametrize(
    "text",
    [
        *("!!bool 3", "!!timestamp x", '!!int ""', "{[1]: 2}", "0x" + "f" * 4300, "9" * 5000, "!!map [1]", "!!set {a}"),
        *("&a [*a]", "[" * 3000, "- " * 30 + "x", "!!python/object/apply:os.getcwd []", "x" * (LONGEST_TEXT + 1), BOMB),
    ],
    ids=lambda text: text[:12],
)
def test_yaml_that_is_no_setting_is_refused_in_a_line(text: str, tmp_path: pathlib.Path) -> None:
    config = tmp_path / "bad.yaml"
    config.write_text(text)
    for read in (lambda: read_config(config), lambda: override({}, [f"data_type={text}"])):
        with pytest.raises(UserError) as refused:
            read()
        (problem,) = refused.value.problems
        assert "\n" not in problem and len(problem) < 300


def test_dates_and_whole_numbers_of_64_bits_are_read() -> None:
    assert parse("[2020-01-01, 18446744073709551615, 1e3]", "x") == ["2020-01-01", 2**64 - 1, 1000.0]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(
            ("training.weight_decay", float("inf")),
            ("training.learning_rate", 1e308),
            ("training.momentum", float("nan")),
        ),
        *(("hung_after_s", 0.001), ("annotators.number", 10**20), ("annotators.seconds_per_label", 1e300)),
        *(
            ("costs.per_selection", 1e308),
            ("devices.server_threads", 10**9),
            ("examples", 10**12),
            ("width", float("nan")),
        ),
        *(("worker_num", 10**10), ("data_type", "x" * 201), ("name", "x" * 201), ("data_dir", "x" * 5000)),
        *(("data_dir", "~nosuchuser/x"), ("prepared_dir", "a\0b"), ("pretrained", "~nosuchuser"), ("data_dir", "")),
        *(("devices.servers", "cuda:99999999999"), ("models", ["cnn"] * 2000), ("training.crop_padding", 8)),
        *(("trainer", "builtins:dict"), ("mode", "json:loads"), ("data_type", "math:nosuch")),
    ],
)
def test_values_without_sense_are_refused(key: str, value: Any) -> None:
    tree: dict[str, Any] = {"data_type": "digits", "models": "cnn", "engine": "simulated", "initial_size": 40}
    group, _, name = key.rpartition(".")
    tree |= {group: {name: value}} if group else {key: value}
    with pytest.raises(UserError) as refused:
        resolve(tree, "my.yaml")
    assert any(line.startswith(f"my.yaml: {key}") for line in refused.value.problems)
    assert all("\n" not in line and len(line) < 300 for line in refused.value.problems)


def test_trainings_of_thirty_virtual_years_are_refused() -> None:
    costs = {"per_image_trained": 1e6}
    with pytest.raises(UserError, match=r"costs: the first training would take 2e\+11"):
        resolve({"data_type": "cifar-10", "engine": "simulated", "costs": costs, "initial_size": 10_000}, "my.yaml")


@pytest.mark.parametrize("name", ["x" * 300, "~nosuchuser/x.yaml", "a\0b", "", "/dev/null", "/proc/1/mem", "\ud800"])
def test_names_that_are_no_config_are_reported(name: str) -> None:
    with pytest.raises(UserError):
        load(name)


def test_a_config_may_be_named_by_a_path_with_a_home(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config("digits.yaml").name == "digits.yaml"
