"""The command `aal`, and what of the repository is installed."""

import importlib
import pathlib
import tomllib

import pytest

from aal import cli

pytestmark = pytest.mark.unit
ROOT = pathlib.Path(__file__).resolve().parent.parent


def test_subcommands_pass_their_arguments_on(capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path) -> None:
    assert cli.main(["report", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path}: is no run directory, it has no run.db\n"
    assert cli.main(["run", "--config", "nothing-like-it"]) == 2
    assert "no such file" in capsys.readouterr().err


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_subcommand_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    assert "usage" in capsys.readouterr().out


def test_what_is_no_command_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fly"]) == 2
    assert "error: there is no command fly" in capsys.readouterr().err
    assert cli.main([]) == 2
    assert cli.main(["--help"]) == 0
    assert "export" in capsys.readouterr().out


def test_all_that_the_package_reads_is_installed() -> None:
    """Every file of the package that is not Python is named in pyproject.toml, and every folder of Python is found."""
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    named = {
        path.resolve()
        for package, patterns in setuptools["package-data"].items()
        for pattern in patterns
        for path in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    folders = [ROOT / "aal", *((ROOT / "aal/app" / name).resolve() for name in ("configs", "data", "experiments"))]
    ignored = {".py", ".pyc"}
    there = {
        path
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and path.suffix not in ignored and "downloads" not in path.parts
    }
    assert there and there <= named, sorted(there - named)
    for module in ("aal.app.data", "aal.app.experiments.aal_2021"):
        assert importlib.import_module(module).__file__ is not None
