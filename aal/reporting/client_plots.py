"""The picture of a federation: which images of which classes each client has, and which of them are labelled."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from aal.reporting.curves import Floats
from aal.reporting.fonts import short_names
from aal.reporting.plots import ABOVE, COLOURS, PAGE, STYLE

HAS, LABELLED = "0.78", COLOURS[0]
TALLEST = 9.0  # inches
SEEN = 0.1  # inches: the width of the largest circle, at least
NAMED = 40  # classes; of more, an axis counts


@mpl.rc_context(STYLE)
def clients(images: Floats, labelled: Floats, names: Sequence[str]) -> Figure:
    """Draws for each client (column) and class (row) a circle with the area of its images, the labelled ones within.

    Bars above count the images of each client.

    Args:
        images: (clients, classes) of each client, labelled or not.
        labelled: (clients, classes) of these.
        names: of the classes.
    """
    number, classes = images.shape
    cell = min((PAGE - 1.2) / number, 0.3)  # inches
    height = float(np.clip(classes * cell, 1.2, TALLEST - 1.6))
    figure = Figure(figsize=(min(PAGE, max(3.5, number * cell + 1.2)), height + 1.6))
    bars, circles = figure.subplots(2, 1, sharex=True, height_ratios=(0.9, height))
    _bars(bars, images.sum(axis=1), labelled.sum(axis=1))
    widest = max(cell, SEEN)  # where many clients are close, neighbours may overlap rather than vanish
    largest = (72 * min(widest, height / classes) * 0.98) ** 2  # square points of a circle
    for counts, colour in ((images, HAS), (labelled, LABELLED)):
        client, label = counts.nonzero()
        areas = largest * counts[client, label] / images.max()
        circles.scatter(client, label, s=np.maximum(areas, 0.15), color=colour, linewidths=0)
    circles.set(xlabel="Client", ylabel="Class", xlim=(-0.6, number - 0.4), ylim=(classes - 0.4, -0.6))
    if classes <= NAMED:
        circles.set_yticks(range(classes), short_names(names))
    if number <= NAMED // 2:
        circles.set_xticks(range(number))
    else:
        circles.xaxis.set_major_locator(MaxNLocator(10, integer=True, steps=[1, 2, 5, 10]))
    circles.tick_params(length=0)
    circles.spines[:].set_visible(False)
    figure.legend(*bars.get_legend_handles_labels(), loc=ABOVE, ncols=2)
    return figure


def _bars(axes: Axes, images: Floats, labelled: Floats) -> None:
    client = np.arange(images.size)
    axes.bar(client, images, color=HAS, width=0.85, linewidth=0, label="images")
    axes.bar(client, labelled, color=LABELLED, width=0.85, linewidth=0, label="labelled")
    axes.set_ylabel("Images")
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.tick_params(axis="x", length=0, labelbottom=False)
    axes.grid(True, axis="y")
