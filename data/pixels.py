"""The pixels of one picture, of whatever mode: upright, opaque, of the size that is wanted."""

import numpy as np
from PIL import Image, ImageOps

from aal.config.errors import UserError

STRIP = 256  # rows of a picture that are drawn on white at a time
LARGEST_OWN_SIZE = 2048  # pixels a side of pictures that keep their size
GREY = {"1", "L", "LA", "La"}  # modes of Pillow; so are all that begin with I;16


def pixels_of(picture: Image.Image, size: int | None) -> np.ndarray:
    """Returns the upright picture on a white ground, as (H, W, 1) uint8 where it is grey and (H, W, 3) otherwise.

    Args:
        picture: of any mode of Pillow.
        size: pixels a side to resize it to; None keeps its own size.

    Raises:
        UserError: `size` is None and the picture is very large.
    """
    if size is None and max(picture.size) > LARGEST_OWN_SIZE:
        raise UserError(
            f"image_size: an image has {picture.width} x {picture.height} pixels; give the pixels a side that all are "
            "resized to, for example image_size=64"
        )
    is_grey = picture.mode in GREY or picture.mode.startswith("I;16")
    picture.load()
    ImageOps.exif_transpose(picture, in_place=True)  # a copy of a large one would be another hundred megabytes
    upright = _on_white(picture)
    if size is not None:
        # Pillow's bilinear filter averages over all pixels that a new one covers; Lanczos would ring at edges.
        upright = upright.resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.asarray(upright)
    return pixels[..., :1] if is_grey else pixels


def _on_white(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16"):  # convert() would cut all above 255
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:  # what lies under transparent pixels is arbitrary
        opaque = Image.new("RGB", picture.size)
        for top in range(0, picture.height, STRIP):  # each copy of a whole one would take 4 bytes a pixel
            box = (0, top, picture.width, min(top + STRIP, picture.height))
            layer = picture.crop(box).convert("RGBA")
            white = Image.new("RGBA", layer.size, "white")
            opaque.paste(Image.alpha_composite(white, layer).convert("RGB"), box)
        return opaque
    return picture if picture.mode == "RGB" else picture.convert("RGB")
