"""What the votes of snapshots cost: three ways to have them, and what a selection pays, against passes of entropy.

    python -m bench.votes                       # prints a table; seconds of this process's CPU time

The paper runs T snapshots of M targets over the pool at each selection: T times the passes of entropy. A selection
here reads the votes that were cast when the version was trained. They could also be cast in one walk over the images
with all snapshots, which are then kept until the end of the training.
"""

import argparse
import copy
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from aal.app.models import build_model
from aal.strategies.disagreement import ranking
from aal.strategies.pool import CandidatePool
from aal.strategies.strategy import build_strategy
from aal.strategies.uncertainty import Entropy
from aal.training.acceleration import fuse_batch_norm
from aal.training.images import ImageBank
from aal.training.inference import predict, run_batches
from aal.training.outputs import Outputs

GREY = {"mean": [0.5], "std": [0.3]}
CLASSES = 10


class Model:
    """A target: its newest network, and the votes of its snapshots."""

    is_coarse = False

    def __init__(self, network: nn.Module, bank: ImageBank, votes: np.ndarray) -> None:
        self._network, self._bank, self._votes = network, bank, votes

    def outputs(self, ids: np.ndarray, precision: str, with_embeddings: bool) -> Outputs:
        """Scores images in one pass."""
        logits = predict(self._network, self._bank, ids, normalisation=GREY)
        return Outputs(logits.numpy(), torch.softmax(logits, dim=1).numpy(), None)

    def monte_carlo_probabilities(self, ids: np.ndarray, passes: int, seed: int) -> np.ndarray:
        """Is not measured."""
        raise NotImplementedError

    def votes(self, ids: np.ndarray) -> np.ndarray:
        """Returns the votes, (snapshots, n)."""
        return self._votes[:, ids]


def one_by_one(snapshots: list[nn.Module], bank: ImageBank, ids: np.ndarray) -> Tensor:
    """Casts votes as a training does: each snapshot by itself, with its batch norms fused."""
    return torch.stack([predict(fuse_batch_norm(one), bank, ids, normalisation=GREY).argmax(1) for one in snapshots])


def in_one_go(snapshots: list[nn.Module], bank: ImageBank, ids: np.ndarray) -> Tensor:
    """Casts votes in one walk over the images: all snapshots on each batch of pixels."""
    fused = [fuse_batch_norm(one) for one in snapshots]

    def all_of_them(images: Tensor) -> tuple[Tensor, ...]:
        return (torch.stack([one(images).argmax(1) for one in fused], dim=1).float(),)

    (votes,) = run_batches(all_of_them, bank, ids, GREY, "float32")
    return votes.T.long()


def measure(network: str, images: int, targets: int, snapshots: int, repeats: int) -> list[tuple[str, float]]:
    """Returns what is measured and its seconds, the least of some repetitions."""
    rng = np.random.RandomState(0)
    bank = ImageBank(rng.randint(256, size=(images, 28, 28, 1)).astype(np.uint8), torch.device("cpu"))
    ids, kept = np.arange(images), []
    model = build_model(network, classes=CLASSES, channels=1, image_size=28, seed=0).eval()
    for number in range(snapshots):  # weights that differ a little, as those of epochs do
        other = copy.deepcopy(model)
        torch.manual_seed(number)
        with torch.no_grad():
            for weight in other.parameters():
                weight += 0.02 * weight.std(correction=0) * torch.randn_like(weight)
        kept.append(other)
    votes = one_by_one(kept, bank, ids)
    assert (votes == in_one_go(kept, bank, ids)).float().mean() > 0.999
    stable = rng.rand(images) < 0.8  # most images of a pool are clear to every snapshot
    votes[:, stable] = votes[0, stable]
    fused = fuse_batch_norm(kept[-1])
    models = [Model(fused, bank, votes.numpy().astype(np.uint8)) for _ in range(targets)]

    def pool() -> CandidatePool:
        return CandidatePool(ids, models, lambda: (ids[:0], ids[:0]))

    def chosen(name: str) -> np.ndarray:
        return build_strategy(name, {}).select(pool(), images // 40, np.random.RandomState(0))

    entropy = _seconds(lambda: Entropy().score(pool()), repeats)
    return [
        (f"entropy: {targets} passes, a selection", entropy),
        (f"the paper's way: {snapshots} times that, a selection", snapshots * entropy),
        (
            f"votes while training, {targets} x {snapshots} passes, a version",
            targets * _seconds(lambda: one_by_one(kept, bank, ids), repeats),
        ),
        ("votes in one go at the end, a version", targets * _seconds(lambda: in_one_go(kept, bank, ids), repeats)),
        ("DIAM with these votes, a selection", _seconds(lambda: chosen("diam"), repeats)),
        ("  of it the ranking by c and h", _seconds(lambda: ranking(pool(), np.random.RandomState(0)), repeats)),
        ("CAL with these votes, a selection", _seconds(lambda: chosen("cal"), repeats)),
    ]


def _seconds(work: Callable[[], object], repeats: int) -> float:
    taken = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return min(taken)


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser("bench.votes", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--network", default="mobilenet_v3:small_i")
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--targets", type=int, default=4)
    parser.add_argument("--snapshots", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure(chosen.network, chosen.images, chosen.targets, chosen.snapshots, chosen.repeats)
    for name, seconds in rows:
        print(f"{name:58} {seconds:8.3f} s   {seconds / rows[0][1]:8.3f} x entropy")
    return 0


if __name__ == "__main__":
    sys.exit(main())
