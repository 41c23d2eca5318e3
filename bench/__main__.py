"""How fast each part is: ours, what a user would write instead, the limit, and the two ratios.

Example:
  python -m bench train score --json
"""

import importlib
import importlib.metadata
import json
import logging
import platform
import signal
import sys

from aal.config.cores import core_count
from aal.config.errors import RunFailed, UserError
from bench.rows import Options, at_least_one, machine, markdown, parser_of

# train comes last of the two: what it sets for a server's process would be set for the worker of score too.
PARTS = {
    **{part: f"bench.{part}:measure" for part in ("score", "select", "train", "federated", "pools")},
    "gpu": "bench.gpu:measure",
    **{part: f"bench.end_to_end:{part}" for part in ("startup", "memory", "endtoend")},
    "busy": "bench.busy:measure",
    "ray": "bench.ray:measure",
}
PACKAGES = ("torch", "torchvision", "numpy", "pydantic")


def main(words: list[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0 done, 1 a run failed, 2 the user's mistake, 130 interrupted."""
    parser = parser_of("bench", __doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"{', '.join(PARTS)}; else all")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="one round, small sizes: a look, not a measurement")
    parser.add_argument("--full", action="store_true", help="endtoend, busy: the config as it is, not a smaller run")
    threads = f"CPU threads to train with (default: {core_count()})"
    parser.add_argument("--threads", type=at_least_one, default=core_count(), help=threads)
    parser.add_argument("--data_dir", help="where CIFAR-10 is (default: data/downloads); never downloaded")
    arguments = parser.parse_args(words)
    if unknown := set(arguments.parts) - PARTS.keys():
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are: {', '.join(PARTS)}")
    logging.getLogger("aal").addHandler(logging.StreamHandler())
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # as an exception, it ends what was started
    from bench.harness import cifar  # torch is not for the processes that a bench starts, which import this module

    options = Options(arguments.quick, arguments.threads, arguments.full)
    about = {**machine(), "threads": options.threads, "rounds": options.rounds}
    versions = {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}
    rows, code = [], 0
    try:
        with cifar(arguments.data_dir) as source:
            options.note("images/real" if source.real else "images/random")
            for part in [part for part in PARTS if part in arguments.parts] or PARTS:
                module, function = PARTS[part].split(":")
                for row in getattr(importlib.import_module(module), function)(options, source):
                    rows.append(row)
                    print(markdown([row]).splitlines()[-1], file=sys.stderr, flush=True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (RunFailed, TimeoutError) as error:
        print(f"error: {error}; what was measured before it follows", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        return 130
    if arguments.json:
        found = [row.as_dict() for row in rows]
        print(json.dumps({"rows": found, "machine": {**about, "notes": options.notes}, "versions": versions}))
    else:
        print(markdown(rows), *(f"- {note}" for note in options.notes), sep="\n")
        print("\n" + ", ".join(f"{key} {value}" for key, value in {**about, **versions}.items() if value is not None))
    return code


if __name__ == "__main__":
    sys.exit(main())
