"""The limit: a network's bare passes over one resident batch, with no data, optimiser or schedule around them."""

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import nn

from aal.training.acceleration import compile_network, fuse_batch_norm
from aal.training.devices import autocast
from bench.rows import rate_of

SECONDS = 5.0  # of a measurement
WARM_UP = 2  # passes; the first one compiles


class Roofline:
    """The passes of a network in its best data type and layout over `number` images of (3, 32, 32)."""

    def __init__(self, model: nn.Module, number: int, device: torch.device) -> None:
        self._device = device
        self._model = model.to(device, memory_format=torch.channels_last)
        self._images = torch.randn(number, 3, 32, 32, device=device).to(memory_format=torch.channels_last)
        self._labels = torch.randint(0, 10, (number,), device=device)
        self._compiled: nn.Module | None = None
        self.is_compiled = False  # whether `train_rate` takes the compiled network where its caller does not choose

    def compile(self) -> float | None:
        """Compiles the network; returns the seconds of that and of the first step, None where PyTorch cannot."""
        started_at = time.perf_counter()
        network = compile_network(self._model, self._device)
        if network is self._model:
            return None
        self._compiled = network
        self.train_rate(seconds=0.0, is_compiled=True)
        return time.perf_counter() - started_at

    def train_rate(self, seconds: float | None = None, is_compiled: bool | None = None) -> float:
        """Returns images a second, forward and backward."""
        take_compiled = self.is_compiled if is_compiled is None else is_compiled
        network = self._compiled if take_compiled and self._compiled is not None else self._model
        network.train()

        def step() -> None:
            self._model.zero_grad()
            with autocast(self._device, "auto"):
                logits = network(self._images)
            F.cross_entropy(logits.float(), self._labels).backward()

        return self._rate(step, seconds)

    def score_rate(self) -> float:
        """Returns images a second, forward only, batch norms fused into the convolutions."""
        network = fuse_batch_norm(self._model.eval())
        with torch.inference_mode(), autocast(self._device, "auto"):
            return self._rate(lambda: network(self._images))

    def _rate(self, act: Callable[[], object], seconds: float | None = None) -> float:
        on_gpu = self._device.type == "cuda"
        passes = 10 if on_gpu else 1  # at a time; without an end of them the clock would run ahead of a GPU

        def work() -> None:
            for _ in range(passes):
                act()
            if on_gpu:
                torch.cuda.synchronize(self._device)

        for _ in range(WARM_UP):
            act()
        if on_gpu:
            torch.cuda.synchronize(self._device)
        return rate_of(passes * len(self._images), work, SECONDS if seconds is None else seconds)
