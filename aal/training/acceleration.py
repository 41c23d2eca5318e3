"""Other forms of a network that compute the same in less time: compiled to train, batch norms fused to score."""

import copy
import functools
import itertools
import logging

import torch
from torch import nn

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


def compile_network(model: nn.Module, device: torch.device) -> nn.Module:
    """Returns the model compiled for batches of one size; where PyTorch cannot compile, itself, with one warning.

    On a GPU its passes are recorded as CUDA graphs, since small networks spend most of a step on starting kernels. A
    recording holds for the parameters where they are: who trains again loads new weights into the same network.
    """
    return torch.compile(model, dynamic=False, mode=_mode(device)) if _compiles(device) else model


def _mode(device: torch.device) -> str | None:
    return "reduce-overhead" if device.type == "cuda" else None


@functools.cache
def _compiles(device: torch.device) -> bool:
    try:
        probe = torch.compile(torch.relu, mode=_mode(device))
        for _ in range(3):  # compiled, recorded, played
            probe(torch.zeros(64, device=device))
    except Exception as error:  # of many kinds: no C compiler, no Triton, a folder that cannot be written
        log.warning(
            "training.compile: PyTorch cannot compile here, so it trains without: %s", str(error).split("\n")[0]
        )
        return False
    return True
