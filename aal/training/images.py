"""Batches of images, from uint8 rows to what a network takes: cut, augmented and normalised whole, on the device."""

import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from aal.config.settings import TrainingSettings
from aal.training.devices import explained_memory_errors

Ids: TypeAlias = np.ndarray | Tensor  # (n,) int64
Normalisation = Mapping[str, Sequence[float]]  # "mean" and "std" of each channel, pixels scaled to 0..1


class ImageBank:
    """Cuts batches out of an image set: on a GPU from a copy of the whole set, on a CPU from the mapped file.

    Made once a process.

    Args:
        images: (N, H, W, C) uint8, or features (N, 1, 1, d) of floats.
        device: where the batches are wanted.
    """

    def __init__(self, images: np.ndarray, device: torch.device) -> None:
        self.device = device
        self._images = torch.from_numpy(np.asarray(images)).to(device)
        # Of an image; features count as many as they have numbers.
        self.pixels = max(images.shape[1] * images.shape[2], images.shape[3])

    def batch(self, ids: Tensor) -> Tensor:
        """Returns the images of `ids` (n,) as they are stored, (n, H, W, C) on the device."""
        return self._images.index_select(0, ids)

    def expect(self, ids: Ids) -> None:
        """Notes which images (n,) batches will be of, so that those on another machine can come together."""


class OwnImages(ImageBank):
    """Some images of a set and no others, in memory of their own: those of a client, or of the test set.

    Args:
        path: of (N, H, W, C) uint8, of which only these rows are read.
        ids: (n,) of them, ascending.
        device: where the batches are wanted.
    """

    def __init__(self, path: pathlib.Path, ids: np.ndarray, device: torch.device) -> None:
        super().__init__(np.load(path, mmap_mode="r")[ids], device)
        self._ids = torch.as_tensor(ids, device=device)

    def batch(self, ids: Tensor) -> Tensor:
        """See `ImageBank`.

        Raises:
            KeyError: one of the ids is not among them.
        """
        rows = torch.searchsorted(self._ids, ids)
        if not torch.equal(self._ids[rows.clamp(max=len(self._ids) - 1)], ids):
            raise KeyError("images that are not this role's own")
        return super().batch(rows)


class ArrivingImages(ImageBank):
    """Images of a set that is too large for every machine: each comes to this one before it is first read.

    Args:
        images: (N, H, W, C) uint8, mapped.
        device: where the batches are wanted; a batch goes there by itself.
        arrive: is called with rows (n,) before they are read.
    """

    def __init__(self, images: np.ndarray, device: torch.device, arrive: Callable[[np.ndarray], None]) -> None:
        super().__init__(images, torch.device("cpu"))
        self.device = device
        self._arrive = arrive

    def batch(self, ids: Tensor) -> Tensor:
        """See `ImageBank`."""
        self.expect(ids)
        return super().batch(ids.cpu()).to(self.device)

    def expect(self, ids: Ids) -> None:
        """See `ImageBank`."""
        self._arrive(torch.as_tensor(ids).cpu().numpy())


@functools.cache
def shared_bank(
    path: pathlib.Path, device: torch.device, arrive: Callable[[np.ndarray], None] | None = None
) -> ImageBank:
    """Returns the bank of an .npy file of images or features; the roles of one process share it.

    Args:
        path: of (N, H, W, C) uint8 or (N, d) of floats, which are mapped.
        device: where the batches are wanted.
        arrive: is called with rows (n,) before they are read, where not all are there; see `Context.arriving`.
    """
    with explained_memory_errors("the images"):
        # Writable for PyTorch, while the file stays as it is; of one that changes, pages must not be kept.
        rows = np.load(path, mmap_mode="r+" if arrive else "c")
        if arrive:
            return ArrivingImages(rows, device, arrive)
        return ImageBank(rows if rows.ndim == 4 else rows[:, None, None, :], device)


def normalisation_of(
    training: TrainingSettings, mean: Sequence[float] | np.ndarray, std: Sequence[float] | np.ndarray
) -> dict[str, list[float]]:
    """Returns what the recipe does to the pixels, as plain numbers for `fit` and for the model file.

    Args:
        training: the recipe; with `normalise` off, pixels are only scaled to 0..1.
        mean: (C,) of the pixels scaled to 0..1.
        std: (C,), the same.
    """
    if not training.normalise:
        return {"mean": [0.0] * len(mean), "std": [1.0] * len(std)}
    return {"mean": [float(value) for value in mean], "std": [float(value) for value in std]}


class Pixels:
    """Turns uint8 (n, H, W, C), scaled to 0..1, or features as they are, into float32 (n, C, H, W), normalised.

    Args:
        normalisation: mean and deviation of each channel.
        device: where the batches are.
        layout: of the pixels in memory; most devices compute fastest in channels_last.
    """

    def __init__(
        self,
        normalisation: Normalisation,
        device: torch.device,
        layout: torch.memory_format = torch.channels_last,
    ) -> None:
        mean, std = (torch.tensor(normalisation[key], dtype=torch.float32, device=device) for key in ("mean", "std"))
        self._of_bytes, self._of_floats = (255 * mean, 255 * std), (mean, std)
        self._layout = layout

    def __call__(self, images: Tensor) -> Tensor:
        """Returns the pixels of a batch."""
        number, height, width, channels = images.shape
        # A row of pixels at a time: on a CPU five times as fast as by channels, which are only one to three.
        rows = images.reshape(number * height, width * channels).to(torch.float32, copy=True)
        mean, std = self._of_bytes if images.dtype == torch.uint8 else self._of_floats
        rows.sub_(mean.repeat(width)).div_(std.repeat(width))
        pixels = rows.view(images.shape).permute(0, 3, 1, 2)
        # With one channel they are contiguous in either layout, and PyTorch goes by the strides, which a copy changes.
        return pixels if self._layout == torch.channels_last else pixels.clone(memory_format=self._layout)


def augment(images: Tensor, *, crop_padding: int, flip: bool) -> Tensor:
    """Crops each image at a random place of its padded self (reflection), and flips half of them.

    One gather for the whole batch, on its device, with PyTorch's random numbers.

    Args:
        images: (n, H, W, C).
        crop_padding: pixels of padding on each side; at the most as far as a reflection reaches, H - 1 and W - 1.
        flip: whether to flip left and right.
    """
    number, height, width, channels = images.shape
    if height == width == 1:  # features
        return images
    crop_padding = min(crop_padding, height - 1, width - 1)

    def draw(low: int, high: int) -> Tensor:
        return torch.randint(low, high, (number, 1), device=images.device)

    rows = torch.arange(height, device=images.device) + draw(-crop_padding, crop_padding + 1)
    columns = torch.arange(width, device=images.device) + draw(-crop_padding, crop_padding + 1)
    if flip:
        columns = torch.where(draw(0, 2) == 1, width - 1 - columns, columns)
    rows = _reflected(rows, height) + height * torch.arange(number, device=images.device)[:, None]
    places = width * rows[:, :, None] + _reflected(columns, width)[:, None, :]
    return images.reshape(-1, channels).index_select(0, places.view(-1)).view(images.shape)


def _reflected(places: Tensor, length: int) -> Tensor:
    return (length - 1) - ((length - 1) - places.abs()).abs()
