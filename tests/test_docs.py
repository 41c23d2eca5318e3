"""The documentation is true: commands run, links lead somewhere, settings and files exist, lines are wrapped."""

import importlib
import json
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import get_args

import pytest
from pydantic import BaseModel

from aal.config.settings import Settings
from tests.guide import EXAMPLES, FENCE, ROOT, sections

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LONGEST = 120
SECTIONS = sections()
FREE = (  # of a user's own objects, and of roles
    *("data_options.", "model_options.", "query_strategy_options.", "annotators.options.", "trainer_options."),
    "ray.pins.",
)
OTHERS = {"allow_pickle"}  # keyword arguments of Python
ENDINGS = "csv|json|md|npz|png|py|sql|svg|toml|txt|yaml"
MADE = {
    "tasks.json",  # files that runs and commands write, or that readers write themselves
    *(
        "config.yaml",
        "seeds.yaml",
        "split.npz",
        "log.txt",
        "labels.csv",
        "metadata.csv",
        "annotations.json",
        "summary.json",
        "people.json",
        "report/annotators_confusion.csv",
        "model.pt",
        "report/report.md",
    ),
    *("comparison.csv", "comparison.md", "comparison.png", "comparison/comparison.png", "gini.py", "fashion.yaml"),
    *("answers.csv", "images.npy", "run.db", "acknowledged.txt", "split.npz", "config.yaml"),
}


def named(page: pathlib.Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.process
@pytest.mark.timeout(300)
def test_the_commands_of_the_guide_run(tmp_path: pathlib.Path) -> None:
    """One test for all sections: of a test each, the processes of pytest-xdist would each run the whole guide."""
    command = [sys.executable, "-m", "tests.guide", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, timeout=280, check=True
    )
    results = json.loads(done.stdout)
    assert [title for title, _, _ in results] == list(SECTIONS)
    assert not [f"{title}: {output}" for title, code, output in results if code]


@pytest.mark.unit
def test_every_example_is_in_a_command_that_runs() -> None:
    script = "\n".join(SECTIONS.values())
    examples = [path for path in EXAMPLES.iterdir() if path.is_file()]
    assert len(examples) >= 7 and len(SECTIONS) >= 9
    for path in examples:
        assert path.name in script or f"={path.stem}:" in script, path.name


@pytest.mark.unit
@pytest.mark.parametrize("page", PAGES, ids=named)
def test_lines_are_wrapped(page: pathlib.Path) -> None:
    for number, line in enumerate(page.read_text().splitlines(), 1):
        is_free = line.startswith(("|", "![", "    ")) or "](" in line or "http" in line
        assert len(line) <= LONGEST or is_free, f"{named(page)}:{number}"


@pytest.mark.unit
@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: pathlib.Path) -> None:
    prose = FENCE.sub("", page.read_text())
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", prose):
        if target.startswith("http"):
            continue
        path = (page.parent / target) if target else page
        assert path.exists(), f"{named(page)}: {target}"
        if anchor:
            assert anchor in anchors(path), f"{named(page)}: {target}#{anchor}"


def anchors(page: pathlib.Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.unit
@pytest.mark.parametrize("page", PAGES, ids=named)
def test_files_that_are_named_exist(page: pathlib.Path) -> None:
    prose = FENCE.sub("", page.read_text())
    for word in re.findall(r"`([^`\s]+)`", prose):
        is_file = re.fullmatch(rf"[\w./-]+\.({ENDINGS})", word) is not None
        is_folder = re.fullmatch(r"(aal|bench|configs|data|docs|experiments|tests)(/[\w-]+)*/", word) is not None
        if (is_file and word not in MADE and not word.startswith("runs/")) or is_folder:
            places = (ROOT, page.parent, ROOT / "configs", EXAMPLES)
            assert any((place / word).exists() for place in places), f"{named(page)}: {word}"


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        for kind in (field.annotation, *get_args(field.annotation)):  # a group, or one that may be null
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from keys_of(kind, f"{prefix}{name}.")


KEYS = set(keys_of(Settings))
COMMAND = re.compile(r"(?:aal run|main\.py|--resume)\s[^#|`]*")


@pytest.mark.unit
@pytest.mark.parametrize("page", PAGES, ids=named)
def test_settings_that_are_named_exist(page: pathlib.Path) -> None:
    text = page.read_text().replace("\\\n", " ")
    prose = FENCE.sub("", text)
    wanted = {key for command in COMMAND.findall(text) for key in re.findall(r"(?<![\w.-])([a-z_.]+)=", command)}
    wanted |= set(re.findall(r"`([a-z_]+(?:\.[a-z_]+)*)(?:=|: )[^`]*`", prose))
    groups = "annotators|devices|training|costs|federated|people|ray"
    wanted |= {
        key for key in re.findall(rf"`((?:{groups})\.[a-z_.]+)`", prose) if not key.endswith((".py", ".yaml", ".json"))
    }
    table = prose.partition("| setting |")[2].partition("\n\n")[0]
    wanted |= {key for row in table.splitlines()[1:] for key in re.findall(r"`([a-z_.]+)`", row.split("|")[1])}
    for key in wanted:
        assert key in KEYS | OTHERS or key.startswith(FREE), f"{named(page)}: {key}"


@pytest.mark.unit
def test_modules_that_are_run_can_be_imported() -> None:
    commands = {name for page in PAGES for name in re.findall(r"python -m ([a-z_.]+)", page.read_text())}
    ours = {name for name in commands if name.split(".")[0] in ("aal", "bench")}
    assert {"aal.report", "bench", "bench.chaos"} <= ours
    for name in ours:
        importlib.import_module(name)


@pytest.mark.unit
def test_the_settings_of_the_tests_are_found() -> None:
    """That the patterns above find anything at all."""
    readme = (ROOT / "README.md").read_text()
    assert "server_train_threshold" in KEYS and "annotators.lease_s" in KEYS
    assert any("server_num=2" in command for command in COMMAND.findall(readme))
