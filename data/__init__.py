"""The image sets: prepared once as two mapped arrays, then divided by the seed."""

from aal.app.data.arrays import ImageSet, imagined_set, open_set
from aal.app.data.features import Features, on_features, open_features
from aal.app.data.fitting import fit_to
from aal.app.data.own_images import Images
from aal.app.data.prepared import prepare
from aal.app.data.splits import load_split, save_split, split, split_again

__all__ = [
    "Features",
    "ImageSet",
    "Images",
    "fit_to",
    "imagined_set",
    "load_split",
    "on_features",
    "open_features",
    "open_set",
    "prepare",
    "save_split",
    "split",
    "split_again",
]
