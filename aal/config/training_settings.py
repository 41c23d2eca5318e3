"""How a network is trained."""

from typing import Annotated, Literal

from pydantic import Field

from aal.config.fields import Count, Group, Positive


class TrainingSettings(Group):
    """How a server learns; `recipe` names a whole group, `training` changes single values of it."""

    LEFT_OPEN = frozenset({"crop_padding", "flip"})

    optimizer: Literal["adam", "sgd"] = Field(description="adam, or sgd with momentum")
    learning_rate: Annotated[float, Field(gt=0, le=1000)] = Field(description="its value, or its peak under one_cycle")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(description="of sgd")
    nesterov: bool = Field(True, description="whether the momentum of sgd is Nesterov's")
    weight_decay: Annotated[float, Field(ge=0, le=1000)] = Field(
        description="decay * w is added to the gradient of every kernel but the output layer's"
    )
    decay_all: bool = Field(False, description="whether weight_decay is for all parameters")
    schedule: Literal["constant", "one_cycle", "multi_step"] = Field(
        description="of the learning rate, step by step; multi_step: a tenth of it after each of the milestones"
    )
    milestones: Annotated[list[Positive], Field(max_length=1000)] = Field(
        [], description="epochs of multi_step; those of a client count on over its rounds, until the next cycle"
    )
    epochs: Positive = Field(description="passes over the labelled images")
    batch_size: Positive = Field(description="images a step of the optimiser")
    crop_padding: Count = Field(
        4, description="pixels of reflected padding for random crops, 0 for none; null: an eighth of the side"
    )
    flip: bool = Field(True, description="random left-right flips; null: but for digits, letters and signs")
    normalise: bool = Field(
        description="subtract the mean and divide by the deviation of each channel, over all that may be trained on"
    )
    precision: Literal["auto", "float32", "tf32", "bf16"] = Field(
        description="of training and of the validation that chooses its epoch; auto: bf16 where the device has it; "
        "tf32: the short float32 of GPUs"
    )
    channels_last: bool = Field(
        description="memory layout of the images and kernels, but for a network with wrong gradients in it on a CPU"
    )
    compile: bool = Field(
        description="compile the training step (on a GPU with CUDA graphs); docs/performance.md says when it pays"
    )
    validate_after: Count = Field(
        description="epochs before the first validation; the best later epoch is kept (the last, if none is later)"
    )
