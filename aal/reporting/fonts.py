"""Fonts for names in any script: matplotlib's own has no Chinese, say, but another that is installed may."""

import contextlib
import functools
import logging
import warnings
from collections.abc import Iterator, Sequence

from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

OWN = "DejaVu Sans"  # comes with matplotlib


def is_drawable(text: str) -> bool:
    """Returns whether the installed fonts have every character of a text."""
    return not _families(text)[1]


def short_names(names: Sequence[str]) -> list[str]:
    """Returns names of classes for an axis: cut, and with their number where no installed font can draw them."""
    known = [name if is_drawable(name) else f"{number}: {name}" for number, name in enumerate(names)]
    return [name if len(name) <= 14 else f"{name[:13]}…" for name in known]


def set_fonts(figure: Figure) -> None:
    """Gives every text of a picture the fonts that have its characters."""
    for text in figure.findobj(Text):
        if isinstance(text, Text) and not text.get_text().isascii():
            text.set_fontfamily(_families(text.get_text())[0])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Lets matplotlib draw without what it says of fonts, which the user of a run can do nothing about."""
    log = logging.getLogger("matplotlib.font_manager")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from")
            yield
    finally:
        log.setLevel(before)


@functools.cache
def _families(text: str) -> tuple[list[str], set[int]]:
    """Returns font families that together have the characters of a text, and those characters that none has."""
    missing = set(map(ord, text)) - _characters(findfont(OWN))
    families = [OWN]
    for name, path in sorted({(font.name, font.fname) for font in fontManager.ttflist}):
        if not missing:
            break
        if "lastresort" in name.replace(" ", "").lower():  # it draws boxes for all characters
            continue
        if found := missing & _characters(path):
            families.append(name)
            missing -= found
    return families, missing


@functools.cache
def _characters(path: str) -> frozenset[int]:
    with contextlib.suppress(OSError, RuntimeError):  # removed since matplotlib listed it
        return frozenset(FT2Font(path).get_charmap())
    return frozenset()
