"""The commit that a run notes."""

import pathlib
import shutil
import subprocess

import pytest

from aal.config.loading import load
from aal.storage import origin
from aal.storage.source_commit import source_commit

pytestmark = pytest.mark.unit


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_checkout_has_a_commit_and_what_lies_in_it_has_none(tmp_path: pathlib.Path) -> None:
    def git(*words: str) -> str:
        about = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        call = ["git", "-C", str(tmp_path), *about, *words]
        return subprocess.run(call, capture_output=True, text=True, check=True).stdout.strip()

    git("init", "-q")
    (tmp_path / "a.py").write_text("1")
    git("add", "a.py")
    git("commit", "-qm", "first")
    commit = git("rev-parse", "HEAD")[:12]
    assert source_commit(tmp_path) == commit
    (tmp_path / "a.py").write_text("2")
    assert source_commit(tmp_path) == f"{commit}-dirty"
    (tmp_path / "installed").mkdir()
    assert source_commit(tmp_path / "installed") is None


def test_the_record_says_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origin, "source_commit", lambda: "abc-dirty")
    assert origin.about(load("digits.yaml"))["version_aal"].endswith(", commit abc-dirty")
