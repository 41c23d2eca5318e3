"""The rooms of the design: who may import whom, how long a file may be, what is never done."""

import ast
import importlib
import pathlib
import subprocess
import sys

import pytest

from aal.config import registry as registries

pytestmark = pytest.mark.unit
ROOT = pathlib.Path(__file__).resolve().parent.parent
ROLES = {"aal.app.server_train", "aal.app.work_query", "aal.app.eval", "aal.app.models", "aal.app.main"}
# What each room may import besides itself.
ROOMS = {
    "aal.config": set(),
    "aal.coordination": {"aal.config"},
    "aal.storage": {"aal.config", "aal.coordination"},
    "aal.training": {"aal.config", "aal.coordination", "aal.storage"},
    "aal.strategies": {"aal.config", "aal.coordination", "aal.training"},
    "aal.aggregation": {"aal.config"},
    "aal.context": {"aal.config", "aal.coordination"},
    "aal.annotators": {"aal.config", "aal.coordination", "aal.context"},
    "aal.app.data": {"aal.config", "aal.coordination", "aal.storage"},
    "aal.engines": {
        *("aal.config", "aal.coordination", "aal.storage", "aal.training", "aal.strategies", "aal.context"),
    },
    "aal.web": {
        *("aal.config", "aal.aggregation", "aal.coordination", "aal.context", "aal.annotators", "aal.storage"),
        "aal.app.data",
    },
    "aal.reporting": {"aal.config", "aal.aggregation", "aal.coordination", "aal.storage"},
}


def files_of(*rooms: str) -> list[pathlib.Path]:
    """The files of rooms, without the links of aal/app."""
    found = []
    for room in rooms:
        path = ROOT.joinpath(*room.removeprefix("aal.app.").split("."))
        found += sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    return [path for path in found if "app" not in path.relative_to(ROOT).parts]


def imported(path: pathlib.Path) -> set[str]:
    """The names of modules that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def room_of(module: str) -> str | None:
    """The room that a module is in; None for one of none."""
    return next((room for room in ROOMS if module == room or module.startswith(f"{room}.")), None)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_run_one_way(room: str) -> None:
    assert files_of(room), room
    for path in files_of(room):
        for name in imported(path):
            assert not any(name == role or name.startswith(f"{role}.") for role in ROLES), (path, name)
            assert room_of(name) in {None, room, *ROOMS[room]}, (path, name)


def test_coordination_is_rules_only() -> None:
    forbidden = {"sqlite3", "multiprocessing", "os", "pathlib", "socket", "subprocess", "torch"}
    for path in files_of("aal.coordination"):
        assert not forbidden & {name.split(".")[0] for name in imported(path)}, path


def test_sql_stands_in_the_run_database_alone() -> None:
    allowed = {"schema.py", "journal.py", "run_recorder.py", "run_reader.py", "resume_state.py"}
    allowed |= {"acknowledged.py", "earlier_record.py", "record_checks.py", "statements.py"}
    for path in [*ROOT.glob("*.py"), *files_of("aal", "experiments")]:
        if "sqlite3" in imported(path):
            assert path.parent.name == "storage" and path.name in allowed, path


def test_main_hub_and_annotators_live_without_torch() -> None:
    code = (
        "import sys, main, aal.app.data, aal.coordination.hub, aal.annotators.simulated, aal.report\n"
        "import aal.engines.local.engine, aal.engines.simulated.engine\n"
        "sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0


def test_no_module_of_a_checkout_has_two_names() -> None:
    """The files at the top are imported by their names in aal.app, so that nothing collides once installed."""
    tops = {path.stem for path in ROOT.glob("*.py")} | {"data", "experiments"}
    for path in [*ROOT.glob("*.py"), *files_of("aal", "data", "experiments", "bench", "tests")]:
        for name in imported(path):
            assert name.split(".")[0] not in tops, (path, name)
    for top in tops:
        assert ROOT.joinpath("aal", "app", top).exists() or ROOT.joinpath("aal", "app", f"{top}.py").exists(), top


def test_files_are_of_a_size_to_read() -> None:
    for path in [*ROOT.glob("*.py"), *files_of("aal", "data", "experiments", "bench")]:
        lines = len(path.read_text().splitlines())
        assert lines <= 350, f"{path} has {lines} lines"


def test_nothing_from_a_file_is_run() -> None:
    forbidden = ("pickle.load", "pickle.loads", "yaml.unsafe_load", "yaml.full_load", "exec", "eval", "os.system")
    for path in [*ROOT.glob("*.py"), *files_of("aal", "data", "experiments")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            call = ast.unparse(node.func)
            assert call not in forbidden, f"{path.name}: {call}"
            words = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if call == "torch.load":
                assert words.get("weights_only") == "True", path
            if call == "np.load":
                assert words.get("allow_pickle", "False") == "False", path
            if call == "yaml.load":
                assert "_Loader" in ast.unparse(node), path  # a subclass of SafeLoader


REGISTRIES = [
    *("SCHEDULES", "TRAINERS", "STRATEGIES", "LABEL_SOURCES", "AGGREGATIONS", "NETWORKS", "IMAGE_SETS", "PARTITIONS")
]


@pytest.mark.parametrize("name", REGISTRIES)
def test_what_is_read_from_the_source_is_what_imports_register(name: str) -> None:
    registry = getattr(registries, name)
    assert registry.entries
    for entry in registry.entries.values():
        importlib.import_module(entry.module)
    decorators = 0
    for path in [*ROOT.glob("*.py"), *files_of("aal", "data")]:
        for node in ast.walk(ast.parse(path.read_text())):
            for decorator in getattr(node, "decorator_list", ()):
                decorators += ast.unparse(decorator).startswith(f"{name}.register(")
    assert registry._objects.keys() == registry.entries.keys() and len(registry.entries) == decorators
