"""The paper's own settings as configs, from the plans: `python -m reproduction.presets` writes `configs/paper/`."""

import pathlib

import yaml

from aal.app.experiments.aal_2021.plans import Run, several, single
from aal.app.experiments.aal_2021.published import BATCHES, SERVERS
from aal.app.experiments.aal_2021.scales import Setup
from aal.config.loading import CONFIGS

FOLDER = CONFIGS / "paper"
NAMES = {
    "cifar-10": ("cifar10", "CIFAR-10"),
    "cifar-100": ("cifar100", "CIFAR-100"),
    "mini-imagenet": ("miniimagenet", "mini-ImageNet"),
}
COMMENTS = {
    "data_type": "downloaded when it is not there; mini-ImageNet you put there",
    "seed": "of everything random in the run",
    "data_dir": "where the images are, or are downloaded to",
    "engine": "one process whose clock is virtual; local: real processes and real time",
    "initial_size": "images labelled at the start",
    "worker_num": "workers, which choose",
    "assignment_type": "AAL; for a baseline: assignment_type=DA query_strategy=entropy (random, margin ...)",
    "val_size": "labelled images that choose the epoch; never trained on",
    "models": "the paper's VGG-16 for small images",
    "recipe": "Adam at 0.001, 100 epochs, no augmentation, best validated epoch after epoch 26",
    "training": "what differs from that for this data set",
    "mode": "sync for figure 3",
    "server_num": "servers, which train",
    "worker_query_num": "batches that each worker offers",
    "query_batch": "images a batch",
    "server_train_threshold": "new labels that start a training",
    "max_staleness": "rounds that selection may run ahead, as in the published code; two trainings may overlap",
    "query_pool_size": "queries that may wait at once; as many for any number of servers",
    "costs": "virtual seconds of work that give the paper's figure 4",
    "annotators": "who answers",
}
INNER = {
    "learning_rate": "its value, or its peak under one_cycle",
    "epochs": "passes over the labelled images",
    "number": "simulated people who label at once",
    "seconds_per_label": "mean time of a label; nobody labels in the published code",
}


def presets() -> dict[str, str]:
    """Returns the YAML text of each file by its name."""
    texts = {}
    for data_type, (short, title) in NAMES.items():
        setup = Setup("paper", data_type, directory(data_type), 1, ("AAL",), BATCHES)
        for batch in BATCHES:
            about = f"{title}, one server, batches of {batch:,}, as in the paper's figures 2 and 3: for a GPU."
            texts[f"{short}-batch{batch}.yaml"] = _text(about, single(setup, "AAL", "async", batch, seed=0))
        for servers in SERVERS:
            about = f"{title}, {servers} server{'s' * (servers > 1)}, as in the paper's table 1: for a GPU."
            texts[f"{short}-servers{servers}.yaml"] = _text(about, several(setup, "AAL", servers, seed=0))
    return texts


def directory(data_type: str) -> str:
    """Returns where the images of a set are by default."""
    return "data/downloads/mini-imagenet" if data_type == "mini-imagenet" else "data/downloads"


def _text(about: str, run: Run) -> str:
    lines = [f"# {about}", ""]
    for key, value in run.config.items():
        head, *rest = yaml.safe_dump({key: value}, sort_keys=False).splitlines()
        lines.append(f"{head:<27} # {COMMENTS[key]}")
        lines += [f"{line:<27} # {INNER[line.split(':')[0].strip()]}" for line in rest]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Writes the files."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in presets().items():
        pathlib.Path(FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
