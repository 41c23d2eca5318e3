"""Settings that nobody would write: each must be accepted or refused by one line a mistake, in bounded time.

Configs and `key=value` words are made from the schema, with values of the wrong type, size and kind, raw YAML that is
meant to do harm, and good configs that were damaged. Accepted settings must read back the same.

Example:
  python -m bench.fuzz_settings --trees 10000 --seed 0
"""

import contextlib
import io
import json
import logging
import pathlib
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from aal.config.errors import UserError
from aal.config.loading import CONFIGS, dump, load
from aal.config.registry import IMAGE_SETS, NETWORKS, SCHEDULES, STRATEGIES
from aal.config.settings import Settings
from bench.rows import parser_of

SECONDS = 15.0  # that one config may take; the longest take one, and five where torchvision is imported first
NAMES = {"data_type": IMAGE_SETS, "query_strategy": STRATEGIES, "models": NETWORKS, "mode": SCHEDULES}
NUMBERS = [
    *(0, 1, -1, 2, 3, 7, 10, 100, 1000, 2**31 - 1, 2**31, 2**63 - 1, 2**64, 10**20, -(10**9), 10**9, 10**12),
    *(0.0, 0.5, -0.0, 1e-300, 1e308, -1e308, 0.001, 1.5, float("inf"), float("-inf"), float("nan"), 5e-324, 1e6),
]
TEXTS = [
    *("", " ", "x", "none", "null", "~", "~nosuchuser", "~nosuchuser/x", "a\0b", "x" * 300, "x" * 5000, "é" * 100),
    *("/proc/1/mem", "/dev/null", "..", "a\nb", "\x1b[2J", "\ud800", "cuda:99999999999999999999", "cuda:-1", "auto"),
    *(
        "json:loads",
        "math:pi",
        "math:nosuch",
        "nosuch.module:x",
        "builtins:dict",
        "typing:Any",
        "torchvision:",
        "a:b:c",
    ),
    *("torchvision:FashionMNIST", "torchvision:nosuch", "..:x", "collections:OrderedDict", "dataclasses:dataclass"),
]
SHAPES: list[Any] = [None, True, False, [], {}, [[]], [None], {"a": 1}, {"": 0}, [1, "a", None], {1: 2}, ["cnn"] * 2000]
RAW = [
    *("!!bool 3", "!!timestamp x", '!!int ""', "{[1]: 2}", "0x" + "f" * 4300, "9" * 5000, "!!float x", "!!binary x"),
    *(
        "!!python/object/apply:os.getcwd []",
        "!!set {a}",
        "!!omap [a: 1]",
        "&a [*a]",
        "&a {b: *a}",
        "*nosuch",
        "{<<: 3}",
    ),
    *(
        "[" * 3000,
        "- " * 500,
        "{a: " * 500,
        "!!map [1]",
        "!!str [1]",
        "!!seq {}",
        "? [1]\n: 2",
        "%YAML 9\n---",
        "---\na\n---",
    ),
    *(
        "2020-01-01",
        "1:30:00",
        "0b",
        "0o9",
        "1_000",
        "=",
        "|\n  a\n b",
        "'",
        '"\\ud800"',
        '"\\x00"',
        "\t",
        "\x00",
        "\ufeff",
        "@",
    ),
    *(
        "1e999",
        "-1e999",
        ".nan",
        "-.inf",
        "1e-999",
        "!!null x",
        "!<tag:x> y",
        "{a, a}",
        "[a: b]",
        "x: y: z",
        "`",
        "!",
        "&",
        "*",
    ),
    "[" + "1, " * 30_000 + "1]",
    "x" * 250_000,
    "\n".join(
        f"{chr(97 + i)}: &{chr(97 + i)} [{', '.join([f'*{chr(96 + i)}' if i else 'x'] * 10)}]" for i in range(10)
    ),
]


class _TooLong(BaseException):
    """One config took longer than any may."""


def main(words: list[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0 all held, 1 something did not."""
    parser = parser_of("bench.fuzz_settings", __doc__)
    parser.add_argument("--trees", type=int, default=10_000, metavar="N", help="configs to try (default: 10000)")
    parser.add_argument("--seed", type=int, default=0, help="of what is tried (default: 0)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(words)
    found = fuzz(arguments.trees, arguments.seed)
    print(json.dumps(found) if arguments.json else yaml.safe_dump(found, sort_keys=False, allow_unicode=True))
    return int(bool(found["failures"]))


def fuzz(trees: int, seed: int) -> dict[str, Any]:
    """Tries configs; returns how many were accepted and refused, what took longest, and the failures."""
    random_ = random.Random(seed)
    logging.getLogger("aal").setLevel(logging.CRITICAL)
    count: Counter[str] = Counter()
    failures: list[str] = []
    longest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(trees):
            text, assignments, wanted_seed = _config(random_)
            config = pathlib.Path(folder) / "fuzz.yaml"
            config.write_bytes(text.encode(errors="surrogatepass"))
            began = time.perf_counter()
            try:
                with limited(SECONDS):
                    settings = load(str(config), assignments, wanted_seed)
            except UserError as error:
                count["refused"] += 1
                if not error.problems or any(not line or len(line) > 2000 for line in error.problems):
                    failures.append(f"{number}: a message of no use: {str(error)[:200]!r}")
            except BaseException:
                failures.append(f"{number}: {text[:300]!r} {assignments}\n{traceback.format_exc(limit=-4)}")
            else:
                count["accepted"] += 1
                failures += [f"{number}: {problem}" for problem in _doubts(settings, config)]
            longest = max(longest, time.perf_counter() - began)
    return {"trees": trees, "seed": seed, **count, "longest_s": round(longest, 2), "failures": failures}


def _doubts(settings: Settings, config: pathlib.Path) -> Iterator[str]:
    """Checks what was accepted."""
    config.write_text(dump(settings), encoding="utf-8")
    try:
        if load(str(config)) != settings:
            yield "what is written reads back as other settings"
    except UserError as error:
        yield f"what is written is refused: {error}"


def _config(random_: random.Random) -> tuple[str, list[str], int | None]:
    """Returns the text of a config, `key=value` words and the argument of --seed."""
    kind = random_.random()
    if kind < 0.15:
        return _damaged(random_), [], None
    tree = {"data_type": "digits", "models": "cnn", "initial_size": 40, "val_size": 20, "server_train_threshold": 5}
    changed = _some_settings(random_, Settings, most=6)
    text = _dumped({**tree, **changed} if random_.random() < 0.9 else changed)
    if kind < 0.35:
        key = random_.choice(list(Settings.model_fields))
        text += f"{key}: {random_.choice(RAW)}\n"
    words = []
    if kind > 0.6:
        for _ in range(random_.randint(1, 3)):
            key = random_.choice([*_keys(Settings, ""), "no.such", "", "a..b", "seed.x", "training", "costs"])
            value = random_.choice(RAW) if random_.random() < 0.4 else json.dumps(_value(random_, key))
            words.append(f"{key}={value}" if random_.random() < 0.95 else key + value)
    return text, words, random_.choice([None, None, None, 0, 5, -1, 2**31, 10**30])


def _damaged(random_: random.Random) -> str:
    """A good config with some characters changed, left out, or lines swapped."""
    text = list(random_.choice(sorted(CONFIGS.rglob("*.yaml"))).read_text(encoding="utf-8"))
    for _ in range(random_.randint(1, 8)):
        place = random_.randrange(len(text))
        text[place] = random_.choice(
            ["", "\n", ":", "-", "[", "{", '"', "\0", "\t", "é", "#", "&", "*", "9", text[place] * 3]
        )
    return "".join(text)


def _some_settings(random_: random.Random, model: type[BaseModel], most: int) -> dict[str, Any]:
    keys = random_.sample(list(model.model_fields), k=random_.randint(0, min(most, len(model.model_fields))))
    found: dict[Any, Any] = {key: _value(random_, key, model.model_fields[key]) for key in keys}
    if random_.random() < 0.05:
        found[random_.choice([*TEXTS, 1, None, True, 1.5, "worker_nun"])] = _hostile(random_)
    return found


def _value(random_: random.Random, key: str, field: FieldInfo | None = None) -> Any:
    """A value for a setting: of four, three that may be right."""
    if random_.random() < 0.25:
        return _hostile(random_)
    kind = field.annotation if field else None
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return _some_settings(random_, kind, most=3)
    if registry := NAMES.get(key):
        return random_.choice([*registry.entries, *registry.entries, random_.choice(TEXTS)])
    for one in (kind, *get_args(kind)):
        if getattr(one, "__origin__", None) is Literal:
            return random_.choice(get_args(one))
        if one is bool:
            return random_.random() < 0.5
        if one is float:
            return random_.choice([0.1, 0.5, 1.0, 2.0, 30.0, 1e-3, random_.choice(NUMBERS)])
        if one is int:
            return random_.choice([1, 2, 3, 5, 10, 20, 100, random_.choice(NUMBERS)])
    return random_.choice([1, 2, 10, 0.5, "auto", "cpu", "paper", "measured", None, *(random_.choice(TEXTS),) * 3])


def _hostile(random_: random.Random) -> Any:
    return random_.choice([random_.choice(NUMBERS), random_.choice(TEXTS), random_.choice(SHAPES)])


def _keys(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _keys(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _dumped(tree: dict[Any, Any]) -> str:
    stream = io.StringIO()
    yaml.safe_dump(tree, stream, sort_keys=False, allow_unicode=True)
    return stream.getvalue()


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises after some seconds, wherever the code inside is."""

    def end(number: int, frame: object) -> None:
        raise _TooLong(f"took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


if __name__ == "__main__":
    sys.exit(main())
