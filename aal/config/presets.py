"""Groups of settings that a config may name: training recipes and costs."""

from typing import Any

RECIPES: dict[str, dict[str, Any]] = {
    # The published TF code: Adam, no augmentation, best validation epoch after epoch 25 (facts: CIFAR-10's rates).
    # Its L2 penalty 5e-4 * sum(w^2) has the gradient 1e-3 * w.
    "paper": {
        "optimizer": "adam",
        "learning_rate": 1e-3,
        "momentum": 0.0,
        "nesterov": True,
        "weight_decay": 1e-3,
        "decay_all": False,
        "schedule": "constant",
        "milestones": [],
        "epochs": 100,
        "batch_size": 128,
        "crop_padding": 0,
        "flip": False,
        "normalise": False,
        "precision": "float32",
        "channels_last": False,
        "compile": False,
        "validate_after": 26,
    },
    # Chosen on CIFAR-10 with a VGG-16 of a quarter of the width: 73 % from 5,000 labels, 51 % from 1,000. Crops and
    # flips are left open, so that they fit the images.
    "modern": {
        "optimizer": "sgd",
        "learning_rate": 0.05,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 2e-3,
        "decay_all": False,
        "schedule": "one_cycle",
        "milestones": [],
        "epochs": 20,
        "batch_size": 64,
        "normalise": True,
        "precision": "auto",
        "channels_last": True,
        "compile": False,
        "validate_after": 15,
    },
}

# Virtual seconds that give the paper's figure 4, read off the picture: the asynchronous interval is what a selection
# takes; the synchronous one adds a training, a line in its images that was fitted to the four batch sizes.
PAPER_COSTS: dict[str, dict[str, float]] = {
    "cifar-10": {"per_image_trained": 3.394e-4, "per_selection": 129.0, "per_model_published": 374.0},
    "cifar-100": {"per_image_trained": 1.163e-4, "per_selection": 136.0, "per_model_published": 50.0},
    "mini-imagenet": {"per_image_trained": 2.695e-3, "per_selection": 162.0, "per_model_published": 473.0},
}
