"""A cluster that does not take the program, or ends under it: a line and an exit code, and the way on."""

import contextlib
import pathlib
import signal
import socket
import subprocess
import sys

import psutil
import pytest

pytest.importorskip("ray", reason="needs ray: pip install .[ray]")

from bench.promises import answers_of
from tests.builders import wait_for
from tests.ray_cluster import answered, is_exact
from tests.test_ray import REAL, ROOT

pytestmark = [pytest.mark.ray, pytest.mark.process, pytest.mark.timeout(240)]
SLOW = [*REAL, "annotators.seconds_per_label=2", "engine=ray"]


def end_ray_of(program: subprocess.Popen[str]) -> None:
    """Ends the Ray that a program has started, in the order of `ray stop`."""
    titles: dict[psutil.Process, str] = {}
    for one in psutil.Process(program.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # which a zombie counts as
            titles[one] = "".join(one.cmdline()[:1]).rpartition("/")[2]
    for kind in ("raylet", "ray::", "gcs_server"):
        chosen = [one for one, title in titles.items() if title.startswith(kind)]
        for one in chosen:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.terminate()
        assert chosen, kind
        psutil.wait_procs(chosen, 5.0)


@pytest.mark.parametrize("signals", [[], [signal.SIGTERM]])
def test_a_run_whose_own_ray_ends_under_it_says_so_and_goes_on(tmp_path: pathlib.Path, signals: list[int]) -> None:
    words = [sys.executable, "main.py", *SLOW, "--out", str(tmp_path / "run"), "--seed", "0", "1"]
    first = tmp_path / "run" / "seed-0"
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as main:
        wait_for(lambda: answered(first) > 5, 120.0)
        for one in signals:
            main.send_signal(one)
        end_ray_of(main)
        text, _ = main.communicate(timeout=100)
    assert main.returncode == (143 if signals else 1) and "Traceback" not in text, text
    assert f"to go on: python main.py --resume {first}\n" in text
    if not signals:
        assert "error: Ray has ended on this machine; see" in text
        assert "error: this program has lost its Ray cluster, and can join no other one; start it again; see" in text
    before = answers_of(first)
    words = [sys.executable, "main.py", "--resume", str(tmp_path / "run")]
    assert subprocess.run(words, cwd=ROOT, timeout=180).returncode == 0
    assert is_exact(first, 80) and before <= answers_of(first) and is_exact(tmp_path / "run" / "seed-1", 80)


def test_a_cluster_that_wants_a_token_which_is_not_there_is_named(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"ray.address=127.0.0.1:{server.getsockname()[1]}"
        words = [sys.executable, "main.py", *SLOW, address, "--out", str(tmp_path / "run")]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2 and not (tmp_path / "run").exists()
    assert f"error: {address.replace('=', ': ')}: Token authentication is enabled but no" in done.stderr
