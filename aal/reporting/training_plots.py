"""Pictures of trainings: their epochs, and what the final model took the test images for."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from aal.reporting.curves import Floats
from aal.reporting.fonts import short_names
from aal.reporting.plots import COLUMN, PAGE, STYLE, in_percent

MOST_CLASSES = 30  # that a picture of pairs can name


@mpl.rc_context(STYLE)
def epochs(version: Floats, epoch: Floats, loss: Floats, accuracy: Floats) -> Figure:
    """Draws mean loss and validation accuracy against the epoch, a line a version: the later, the darker.

    Args:
        version: (n,) of the model.
        epoch: (n,) from 1.
        loss: (n,) mean of the epoch; NaN where unknown.
        accuracy: (n,) on the validation images, from 0 to 1; NaN where an epoch was not validated.
    """
    panels = [(loss, "Mean loss of the epoch"), (accuracy, "Validation accuracy (%)")]
    panels = [panel for panel in panels if not np.isnan(panel[0]).all()]
    figure = Figure(figsize=(COLUMN if len(panels) == 1 else PAGE, 2.5))
    row = figure.subplots(1, len(panels), squeeze=False)[0]
    newest = max(version.max(), 1)
    for axes, (values, label) in zip(row, panels, strict=True):
        for one in np.unique(version):
            mine = (version == one) & ~np.isnan(values)
            marker = "." if mine.sum() < 30 else ""
            colour = colormaps["viridis_r"](0.15 + 0.85 * one / newest)
            axes.plot(epoch[mine], values[mine], marker=marker, color=colour, linewidth=1)
        axes.set(xlabel="Epoch", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(True)
    if len(panels) == 2:
        row[1].yaxis.set_major_formatter(in_percent)
    if not np.isnan(loss).all():
        row[0].set_ylim(bottom=0)
    shades = mpl.cm.ScalarMappable(mpl.colors.Normalize(-0.15 / 0.85 * newest, newest), colormaps["viridis_r"])
    bar = figure.colorbar(shades, ax=list(row), label="Version", pad=0.01, aspect=30)
    bar.ax.set_ylim(0, newest)
    bar.ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


@mpl.rc_context(STYLE)
def confusion(counts: Floats, names: Sequence[str]) -> Figure:
    """Draws how many test images of each class (row) were taken for each class (column), right ones in grey.

    Args:
        counts: (classes, classes).
        names: of the classes; the number of a class is before a name that no installed font can draw.
    """
    size = min(PAGE, 1.4 + 0.28 * len(names))
    figure = Figure(figsize=(size, size))
    axes = figure.add_subplot()
    draw_confusion(axes, counts, names)
    axes.set(xlabel="Taken for", ylabel="True class")
    return figure


def draw_confusion(axes: Axes, counts: Floats, names: Sequence[str], font_size: float = 6) -> None:
    """Draws how many images of each class (row) were taken for each class (column), right ones in grey."""
    mistakes = counts * (1 - np.eye(len(names)))
    axes.imshow(mistakes, cmap="Oranges", vmin=0, vmax=max(mistakes.max(), 1))
    for row, column in zip(*counts.nonzero(), strict=True):
        dark = row != column and mistakes[row, column] > 0.6 * mistakes.max()
        colour = "0.55" if row == column else "white" if dark else "black"
        axes.text(column, row, f"{counts[row, column]:.0f}", ha="center", va="center", color=colour, fontsize=font_size)
    short = short_names(names)
    axes.set_xticks(range(len(names)), short, rotation=90 if max(map(len, short)) > 2 else 0)
    axes.set_yticks(range(len(names)), short)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
