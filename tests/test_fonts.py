"""Names in scripts that matplotlib's own font does not have."""

import logging
import pathlib
import warnings

import numpy as np
import pytest
from matplotlib.ft2font import FT2Font

from aal.reporting import fonts, plots
from aal.reporting.training_plots import confusion

pytestmark = pytest.mark.unit
NAMES = ["cat", "é ж", "\U0001f408 emoji 中文", "中文"]


@pytest.fixture(autouse=True)
def forget() -> None:
    fonts._families.cache_clear()


def test_classes_that_no_font_can_draw_have_their_number_and_no_warning(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = [font for font in fonts.fontManager.ttflist if font.name == fonts.OWN]
    monkeypatch.setattr(fonts.fontManager, "ttflist", own)
    figure = confusion(np.eye(4), NAMES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.save(figure, tmp_path / "confusion")
    drawn = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert drawn == ["cat", "é ж", "2: \U0001f408 emoji 中文", "3: 中文"]


def test_another_installed_font_is_taken_where_it_has_what_is_missing(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if matplotlib's own font had only ASCII."""

    def characters(path: str) -> frozenset[int]:
        return frozenset(range(128) if path == fonts.findfont(fonts.OWN) else FT2Font(path).get_charmap())

    monkeypatch.setattr(fonts, "_characters", characters)
    figure = confusion(np.eye(2), ["cat", "é ж"])
    plots.save(figure, tmp_path / "confusion")
    cat, other = figure.axes[0].get_yticklabels()
    assert other.get_text() == "é ж" and other.get_fontfamily()[0] == fonts.OWN
    assert len(other.get_fontfamily()) > 1 and len(cat.get_fontfamily()) == 1


def test_what_matplotlib_says_of_fonts_is_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("matplotlib.font_manager")
    with fonts.quiet():
        log.warning("findfont: Failed to find font weight normal for WenQuanYi Zen Hei, now using 500.")
    assert not caplog.messages
    log.warning("of others")
    assert caplog.messages == ["of others"]
