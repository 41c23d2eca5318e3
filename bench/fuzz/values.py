"""Values that no setting should have, or few: numbers, texts, shapes of YAML, and raw YAML that is meant to do harm."""

from typing import Any

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
