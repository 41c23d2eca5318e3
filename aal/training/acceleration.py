"""Other forms of a network that compute the same in less time: compiled to train, batch norms fused to score."""

import contextlib
import copy
import itertools
import logging
import time
import weakref
from collections.abc import Callable, Iterator
from typing import TypeAlias

import torch
from torch import Tensor, nn

LossFunction: TypeAlias = Callable[..., Tensor]  # from the tensors of a step

log = logging.getLogger("aal")


def fuse_batch_norm(model: nn.Module, *, inplace: bool = False) -> nn.Module:
    """Returns a network to score with: channels_last, with each batch norm right after a convolution in its kernel.

    Its outputs differ from those of the model in evaluation mode by rounding only.

    Args:
        model: with its final weights.
        inplace: whether to change the model itself, which saves the memory and time of a copy.
    """
    network = (model if inplace else copy.deepcopy(model)).eval()
    for layers in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        for place, (layer, after) in enumerate(itertools.pairwise(list(layers))):
            if isinstance(layer, nn.Conv2d) and isinstance(after, nn.BatchNorm2d) and after.track_running_stats:
                layers[place] = nn.utils.fusion.fuse_conv_bn_eval(layer, after)
                layers[place + 1] = nn.Identity()
    return network.to(memory_format=torch.channels_last)


def compile_loss(loss_of: LossFunction, model: nn.Module, images: Tensor, *others: Tensor) -> LossFunction:
    """Returns a training step's loss compiled for batches of one size; where PyTorch cannot compile, itself.

    On a GPU its passes are recorded as CUDA graphs, since small networks spend most of a step on starting kernels. A
    recording holds for the parameters where they are: who trains again loads new weights into the same network. That it
    works is tried with passes forward and backward, which leave the network as it was.

    Args:
        loss_of: from a batch of images (n, H, W, C) uint8, their labels (n,) and what else it takes to the mean loss.
        model: the network in it.
        images: a batch, of the size that all will have.
        *others: what else it takes, of the shapes that all will have.
    """
    if model in _uncompilable:
        return loss_of
    mode = "reduce-overhead" if images.device.type == "cuda" else None
    started_at = time.monotonic()
    try:
        compiled: LossFunction = torch.compile(loss_of, dynamic=False, mode=mode)
        with _left_unchanged(model, images.device):
            for _ in range(3):  # compiled, recorded, played
                compiled(images, *others).backward()
                model.zero_grad()
    except Exception as error:  # of many kinds: no C compiler, no Triton, a network that no graph can be made of
        _uncompilable.add(model)
        reason = str(error).strip().split("\n")[0]
        log.warning("training.compile: PyTorch cannot compile this, so it trains without: %s", reason)
        return loss_of
    if (seconds := time.monotonic() - started_at) > 1:
        log.info("compiled the training step in %.0f s", seconds)
    return compiled


@contextlib.contextmanager
def _left_unchanged(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Gives a network and PyTorch's random numbers back as they were; no weight is changed by a pass alone."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        model.zero_grad()
        for buffer, before in buffers:
            buffer.copy_(before)


_uncompilable: weakref.WeakSet[nn.Module] = weakref.WeakSet()  # tried in vain; a server keeps its networks
