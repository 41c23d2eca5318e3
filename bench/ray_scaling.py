"""What Ray's costs leave of a cluster of 100 machines: simulated, with what `python -m bench ray` measures on one.

64 servers, 1,000 workers, 10,000 annotators who take 5 s a label; trainings of 1,600 s, a model for every 100,000
labels. Prints two rows without Ray's costs, and with them on networks of 10 and of 1 Gb/s: one of a tenth of the
annotators and labels, for so many rounds that models come as fast as labels do, and one of the whole size for a few.

Example:
  python -m bench.ray_scaling
"""

import sys
from dataclasses import dataclass

from bench.rows import at_least_one, parser_of
from bench.scaling import show, simulate

MACHINES, MODEL_BYTES = 100, 60e6
SIZE = {"servers": 64, "workers": 1000, "annotators": 10_000, "training_s": 1600.0}
ROUND, SELECTION_S, LABEL_S = 100_000, 20.0, 5.0
PART, SETTLED = 10, 80  # of the annotators and labels of the first row, and its rounds: a training takes 32 of them


@dataclass(frozen=True)
class Costs:
    """What Ray costs.

    Attributes:
        draw_s: of a draw and of an answer, each.
        turn_s: between two calls in which a process of annotators draws and answers for all of them.
        polls_per_s: of all servers and workers together.
    """

    draw_s: float = 0.0023
    turn_s: float = 0.05
    polls_per_s: float = 400.0

    def changes(self, gigabits: float) -> dict[str, float]:
        """Returns the settings that stand for these costs where machines are so far apart, times in seconds.

        A role that waits hears what it waits for half a round of polls later in the mean. A version counts when the
        last machine has it, since all of them take it from one.
        """
        heard_s = (SIZE["servers"] + SIZE["workers"]) / self.polls_per_s / 2
        model_s = MACHINES * MODEL_BYTES * 8 / (gigabits * 1e9)
        return {
            "costs__per_selection": SELECTION_S + heard_s,
            "costs__per_model_published": SIZE["training_s"] + heard_s + model_s,
            "annotators__seconds_per_label": LABEL_S + 2 * self.draw_s + self.turn_s / 2,
        }


def main(words: list[str] | None = None) -> int:
    """Runs the command."""
    parser = parser_of("bench.ray_scaling", __doc__)
    parser.add_argument("--images", type=at_least_one, default=100_000_000, help="of the pool (default: 100,000,000)")
    parser.add_argument("--rounds", type=at_least_one, default=6, help="of 100,000 labels (default: 6)")
    given = parser.parse_args(words)
    networks = {"without": {}, "10 Gb/s": Costs().changes(10), "1 Gb/s": Costs().changes(1)}
    part = {**SIZE, "annotators": SIZE["annotators"] // PART}
    for name, changes in networks.items():
        show(simulate(name, None, part, 2 * SETTLED * ROUND // PART, ROUND // PART, SETTLED, **changes))
        show(simulate(name, None, SIZE, given.images, ROUND, given.rounds, **changes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
