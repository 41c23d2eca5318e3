"""The rooms of the design: who may import whom, how long a file may be."""

import ast
import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.unit
ROOT = pathlib.Path(__file__).resolve().parent.parent
ROLES = {f"aal.app.{name}" for name in ("main", "server_train", "work_query", "eval", "models")}


def imported(path: pathlib.Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def files_of(*rooms: str) -> list[pathlib.Path]:
    """The files of rooms, without the links of aal/app."""
    return [path for room in rooms for path in (ROOT / room).rglob("*.py") if "app" not in path.relative_to(ROOT).parts]


@pytest.mark.parametrize("room", ["aal", "data"])
def test_no_shared_file_imports_a_role(room: str) -> None:
    doors = set((ROOT / "aal").glob("*.py"))  # the command and the Python API, which start main
    for path in set(files_of(room)) - doors:
        names = {".".join(name.split(".")[:3]) for name in imported(path)}
        assert not ROLES & names, path
        if room == "aal":
            assert "aal.app.data" not in names, path


@pytest.mark.parametrize(
    ("module", "lower"),
    [
        ("aal/messages.py", set()),
        ("aal/pools.py", {"aal.coordination.messages"}),
        ("aal/schedule.py", {"aal.config.settings", "aal.coordination.messages", "aal.storage.resume_state"}),
        ("aal/journal.py", set()),
    ],
)
def test_the_lowest_rooms_know_nothing_above_them(module: str, lower: set[str]) -> None:
    assert {name for name in imported(ROOT / module) if name.startswith("aal")} <= lower


def test_main_hub_and_annotators_live_without_torch() -> None:
    code = (
        "import sys, main, aal.app.data, aal.coordination.hub, aal.annotators.simulated, aal.report\n"
        "import aal.engines.local.engine, aal.engines.simulated.engine\n"
        "sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0


def test_files_are_of_a_size_to_read() -> None:
    for path in [*ROOT.glob("*.py"), *files_of("aal", "data")]:
        lines = len(path.read_text().splitlines())
        assert lines <= 350 or path.name == "config.py", f"{path.name} has {lines} lines"


def test_nothing_from_a_file_is_run() -> None:
    forbidden = ("pickle.load", "pickle.loads", "yaml.unsafe_load", "yaml.full_load", "exec", "eval", "os.system")
    for path in [*ROOT.glob("*.py"), *files_of("aal", "data")]:
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
