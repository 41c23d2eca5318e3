"""What the tests of several files stand on."""

import signal
from collections.abc import Iterator

import pytest
import torch

# What a shell starts in the background ignores Ctrl-C, and so would all that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """PyTorch computes with one thread meanwhile, so that results do not depend on the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
