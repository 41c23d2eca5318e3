"""The images of a client: its own and no others."""

import pathlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aal.training.images import OwnImages

pytestmark = pytest.mark.unit
IMAGES = np.random.default_rng(0).integers(0, 256, (20, 2, 2, 3), np.uint8)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    found = tmp_path_factory.mktemp("set") / "images.npy"
    np.save(found, IMAGES)
    return found


@given(own=st.sets(st.integers(0, 19), min_size=1), asked=st.lists(st.integers(0, 19), min_size=1))
def test_a_client_has_its_own_images_and_no_others(path: pathlib.Path, own: set[int], asked: list[int]) -> None:
    images = OwnImages(path, np.array(sorted(own)), torch.device("cpu"))
    if set(asked) <= own:
        assert torch.equal(images.batch(torch.tensor(asked)), torch.from_numpy(IMAGES[asked]))
        return
    with pytest.raises(KeyError, match="not this role's own"):
        images.batch(torch.tensor(asked))
