"""The paper's own settings as configs: `python -m aal.app.experiments.aal_2021.presets` writes `configs/paper/`."""

import yaml

from aal.app.experiments.aal_2021.plans import Run, Setup, several, single
from aal.app.experiments.aal_2021.published import BATCHES, FOLDER, SERVERS
from aal.config.loading import CONFIGS

CONFIG_FOLDER = CONFIGS / "paper"
TITLES = {"cifar-10": "CIFAR-10", "cifar-100": "CIFAR-100", "mini-imagenet": "mini-ImageNet"}


def presets() -> dict[str, str]:
    """Returns the YAML text of each file by its name."""
    texts = {}
    for data_type, title in TITLES.items():
        short, setup = data_type.replace("-", ""), Setup("paper", data_type, directory(data_type), 1, ("AAL",), BATCHES)
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
    comments = yaml.safe_load((FOLDER / "config_comments.yaml").read_text(encoding="utf-8"))
    lines = [f"# {about}", ""]
    for key, value in run.config.items():
        head, *rest = yaml.safe_dump({key: value}, sort_keys=False).splitlines()
        lines.append(f"{head:<27} # {comments['keys'][key]}")
        lines += [f"{line:<27} # {comments['inner'][line.split(':')[0].strip()]}" for line in rest]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    CONFIG_FOLDER.mkdir(exist_ok=True)
    for name, text in presets().items():
        (CONFIG_FOLDER / name).write_text(text, encoding="utf-8")
