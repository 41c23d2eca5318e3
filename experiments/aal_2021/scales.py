"""How much smaller than the paper a reproduction may be, and what else a person chooses."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any


@dataclass(frozen=True)
class Scale:
    """How much smaller than the paper.

    Attributes:
        fraction: of every label count but the validation set's.
        queries: batches that each worker offers in the study of several servers; 40 in the paper.
        settings: what the scale says of the validation set, the network, its training, the devices.
        differs: the difference from the paper, in words.
    """

    fraction: Fraction
    queries: int
    settings: dict[str, Any]
    differs: str

    def labels(self, count: int) -> int:
        """Returns a label count of the paper at this scale, a whole number for all that the plans use."""
        scaled = count * self.fraction
        assert scaled.denominator == 1, count
        return int(scaled)


ONE_CORE = {"servers": "cpu", "workers": "cpu", "server_threads": 1}
SCALES = {
    "paper": Scale(
        Fraction(1),
        40,
        {"val_size": 5000, "models": "vgg16", "recipe": "paper"},
        "It does not: label counts, network and training are the paper's. Times are virtual, from the costs that give "
        "figure 4's times; labels cost no time, as in the published code.",
    ),
    "cpu": Scale(
        Fraction(1, 5),
        8,
        {"val_size": 2000, "models": "vgg16_bn", "width": 0.25, "recipe": "modern", "devices": ONE_CORE},
        "Every label count is a fifth of the paper's (initial labels, batches, budget), 2,000 images validate instead "
        "of 5,000, the network is a VGG-16 with a quarter of the channels and batch norm before ReLU, trained for 20 "
        "epochs by SGD with crops and flips. With several servers each worker offers 8 batches of 50, not 40. A label "
        "takes such a (virtual) time that 20 annotators label a round while the middle training goes on.",
    ),
    "tiny": Scale(
        Fraction(1, 50),
        8,
        {
            "val_size": 100,
            "models": "cnn",
            "recipe": "modern",
            "training": {"epochs": 8, "validate_after": 5, "batch_size": 32, "crop_padding": 1, "flip": False},
            "devices": ONE_CORE,
        },
        "In everything: a fiftieth of the label counts, 100 images that validate, a network of three convolutions, 8 "
        "epochs. It shows that the program works, and nothing of the paper.",
    ),
}


@dataclass(frozen=True)
class Setup:
    """What a person chose.

    Attributes:
        scale: a key of SCALES.
        data_type: the images.
        data_dir: where they are.
        seeds: how many; they are 0, 1, 2 ...
        methods: strategies of all workers, or AAL.
        batches: labels of a round in the paper.
    """

    scale: str
    data_type: str
    data_dir: str
    seeds: int
    methods: tuple[str, ...]
    batches: tuple[int, ...]

    @property
    def size(self) -> Scale:
        """How much smaller than the paper."""
        return SCALES[self.scale]
