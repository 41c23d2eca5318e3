"""Which sets of torchvision.datasets are for classification, and what their constructors take."""

import difflib
import inspect
from typing import Any, get_type_hints

from aal.config.errors import UserError
from aal.config.registry import check_options

# The splits of a set whose labelled images are not all in the constructor's default and in "test"; None: no test split.
SPLITS: dict[str, tuple[tuple[str, ...], str | None]] = {
    "CLEVRClassification": (("train",), "val"),  # the labels of its test split are kept secret
    "Country211": (("train", "valid"), "test"),
    "DTD": (("train", "val"), "test"),
    "FER2013": (("train",), None),  # the labels of its test split may be missing
    "Flowers102": (("train", "val"), "test"),
    "ImageNet": (("train",), "val"),
    "Imagenette": (("train",), "val"),
    "LFWPeople": (("10fold",), None),  # its test split holds other people
    "PCAM": (("train", "val"), "test"),
    "Places365": (("train-standard",), "val"),
    "RenderedSST2": (("train", "val"), "test"),
}
# Without one class for each image (attributes, captions, pairs), or folders, for which there is data_type folder.
OTHERS = {
    *("CelebA", "DatasetFolder", "Flickr30k", "Flickr8k", "ImageFolder", "LFWPairs", "LSUNClass", "MovingMNIST"),
    *("PhotoTour", "SBU", "VisionDataset", "WIDERFace"),
}
# Digits, letters, words and signs, which mean something else in a mirror.
OF_SIGNS = {"emnist", "gtsrb", "kmnist", "mnist", "omniglot", "qmnist", "renderedsst2", "svhn", "usps"}
# Parameters that are no options: the program's own, and `what` of QMNIST, which makes training and test set the same.
RESERVED = {"root", "train", "download", "transform", "target_transform", "transforms", "loader", "what"}


def is_of_signs(data_type: str) -> bool:
    """Whether a data type is a set of torchvision whose images must not be mirrored."""
    prefix, _, name = data_type.partition(":")
    return prefix == "torchvision" and name.lower() in OF_SIGNS


def find_set(name: str) -> Any:
    """Returns the class of a classification set.

    Args:
        name: of the class; case does not matter.

    Raises:
        UserError: there is no such set, or it is not one for classification.
    """
    from torchvision import datasets

    kinds = {word: kind for word in datasets.__all__ if inspect.isclass(kind := getattr(datasets, word))}
    usable = {word.lower(): word for word, kind in kinds.items() if _classifies(word, kind)}
    if name.lower() in usable:
        return kinds[usable[name.lower()]]
    there_are = f"there are: {', '.join(usable.values())}"
    if any(name.lower() == word.lower() for word in kinds):
        raise UserError(f"data_type: torchvision:{name} is not a classification set; {there_are}")
    close = difflib.get_close_matches(name.lower(), usable, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(usable[word] for word in close)}?" if close else there_are
    raise UserError(f"data_type: torchvision.datasets has no {name}; {hint}")


def _classifies(word: str, kind: Any) -> bool:
    """Whether a set gives one class for each image; those for detection and the like transform pairs."""
    parameters = parameters_of(kind)
    if word in OTHERS or "frames_per_clip" in parameters:
        return False
    return "target_transform" in parameters and ("transforms" not in parameters or "target_types" in parameters)


def parameters_of(kind: Any) -> dict[str, inspect.Parameter]:
    """Returns the parameters of a constructor by name, those that it passes on to its base class included.

    Their annotations are types, not text.
    """
    found: dict[str, inspect.Parameter] = {}
    for ancestor in kind.__mro__:
        if "__init__" not in vars(ancestor):
            continue
        hints = get_type_hints(ancestor.__init__)
        own = [*inspect.signature(ancestor.__init__).parameters.values()][1:]
        named = [parameter for parameter in own if parameter.kind is not parameter.VAR_KEYWORD]
        found = {p.name: p.replace(annotation=hints.get(p.name, Any)) for p in named} | found
        if len(named) == len(own):
            break
    return found


def checked(parameters: dict[str, inspect.Parameter], options: dict[str, Any]) -> dict[str, Any]:
    """Returns options as the constructor reads them.

    Args:
        parameters: of the constructor.
        options: as in the config.

    Raises:
        UserError: an option is unknown, missing or of the wrong type; one line each.
    """

    def choose() -> None: ...

    named = [p.replace(kind=p.KEYWORD_ONLY) for p in parameters.values() if p.name not in RESERVED]
    choose.__dict__["__signature__"] = inspect.Signature(named)
    choose.__annotations__ = {p.name: p.annotation for p in named}
    return check_options(choose, options, (), "data_options")
