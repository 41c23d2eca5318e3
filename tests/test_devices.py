"""Where a process computes, with how many threads, and in which precision."""

import pytest
import torch

from aal.config.errors import UserError
from aal.training.devices import autocast, computes_in_bf16, resolve_device

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("one_thread")]
CPU = torch.device("cpu")


def test_devices_are_dealt_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto", 3) == resolve_device("cpu", 3) == CPU
    for name in ("cuda", "cuda:0"):
        with pytest.raises(UserError, match=f"^{name} is not there, PyTorch sees 0 CUDA devices; "):
            resolve_device(name, 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    found = [resolve_device(name, 3) for name in ("auto", "cuda", "cuda:0", "cpu")]
    assert [str(device) for device in found] == ["cuda:1", "cuda:1", "cuda:0", "cpu"]
    with pytest.raises(UserError, match="cuda:2 is not there, PyTorch sees 2"):
        resolve_device("cuda:2", 0)


def test_precision_falls_back_to_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert not computes_in_bf16(CPU)
    for precision, enabled in (("auto", False), ("float32", False), ("bf16", True)):
        with autocast(CPU, precision):
            assert torch.is_autocast_enabled("cpu") == enabled
