"""Registries: what a setting may name. One file adds an entry; a user's own is named as `package.module:object`.

Names are read from the source of the files without importing them, so that a mistake in the settings is reported before
PyTorch is loaded. An object is imported when it is used.
"""

import ast
import functools
import importlib
import inspect
import json
import os
import pathlib
import re
import sys
import types
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_type_hints

from pydantic import ConfigDict, ValidationError, create_model

from aal.config.errors import UserError

T = TypeVar("T")
ROOT = pathlib.Path(__file__).resolve().parents[1]  # of the package aal
REFERENCE = re.compile(r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")


@dataclass(frozen=True)
class Entry:
    """A registered object, not imported yet.

    Attributes:
        name: the name that a config uses.
        module: that defines and registers it.
        aliases: other names.
        facts: keyword arguments of its decorator, literals only; what the settings are checked against.
    """

    name: str
    module: str
    aliases: tuple[str, ...]
    facts: Mapping[str, Any]


class Registry:
    """The objects that one setting may name.

    Args:
        variable: the registry's own name, which decorators use: `@STRATEGIES.register("entropy")`.
        setting: the key in a config.
        *places: modules and packages to look in, such as `aal.strategies`.
        options: the key of the parameters of the objects; `<setting>_options` by default.
        prefixes: of names that stand for objects of a library, such as `torchvision`; the module that loads each.
    """

    def __init__(
        self,
        variable: str,
        setting: str,
        *places: str,
        options: str | None = None,
        prefixes: Mapping[str, str] | None = None,
    ) -> None:
        self._variable, self.setting, self._places = variable, setting, places
        self._options = options or f"{setting}_options"
        self._prefixes = dict(prefixes or {})
        self._objects: dict[str, Any] = {}

    def register(self, name: str, *, aliases: Collection[str] = (), **facts: object) -> Callable[[T], T]:
        """Returns the decorator that registers a class or function under a name.

        Args:
            name: as in configs.
            aliases: other names; case, hyphens and underscores never matter.
            **facts: literals, which `facts` returns without importing the file.
        """

        def keep(thing: T) -> T:
            self._objects[name] = thing
            return thing

        return keep

    @functools.cached_property
    def entries(self) -> dict[str, Entry]:
        """All registered objects by name, read from the source."""
        return {entry.name: entry for place in self._places for entry in self._found(place)}

    def _found(self, place: str) -> Iterator[Entry]:
        path = ROOT.joinpath(*place.split(".")[1:])
        files = sorted(path.glob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
        # Only the decorators are parsed: whole files take ten times as long, at every start of the program.
        call = re.compile(
            rf"^@{self._variable}\.register(\(.*?\))[ \t]*(?:#[^\n]*)?\n(?=@|class |def |async def |#)",
            re.MULTILINE | re.DOTALL,
        )
        for file in files:
            module = place if not path.is_dir() else f"{place}.{file.stem}".removesuffix(".__init__")
            for found in call.finditer(file.read_text(encoding="utf-8")):
                parsed = ast.parse(f"f{found[1]}", mode="eval").body
                assert isinstance(parsed, ast.Call)
                words = {str(word.arg): ast.literal_eval(word.value) for word in parsed.keywords}
                name = ast.literal_eval(parsed.args[0])
                yield Entry(name, module, tuple(words.pop("aliases", ())), words)

    def canonical(self, name: object) -> object:
        """Returns the registered name that `name` stands for; what is none, unchanged."""
        if not isinstance(name, str):
            return name
        return self._by_plain_name.get(_plain(name), name)

    @functools.cached_property
    def _by_plain_name(self) -> dict[str, str]:
        return {_plain(word): entry.name for entry in self.entries.values() for word in (entry.name, *entry.aliases)}

    def facts(self, name: str) -> Mapping[str, Any]:
        """Returns the literals that an entry was registered with; none for a user's own object."""
        entry = self.entries.get(name)
        return entry.facts if entry else {}

    def problem(self, name: str) -> str | None:
        """Returns why `name` cannot be used, without importing it; None when it has the right form."""
        if name in self.entries or REFERENCE.match(name):
            return None
        return f"must be {self.choices()}, not {name}"

    def is_users_own(self, name: str) -> bool:
        """Whether `name` stands for a user's object, `package.module:object`, whose import runs the user's code."""
        return bool(REFERENCE.match(name)) and name.partition(":")[0] not in self._prefixes

    def choices(self) -> str:
        """Returns what the setting may be, for messages and help."""
        own = [*(f"{prefix}:NAME" for prefix in self._prefixes), "package.module:object"]
        *others, last = [*self.entries, *own]
        return f"{', '.join(others)} or {last}"

    def load(self, name: str) -> Any:
        """Imports and returns the object of a name.

        Args:
            name: a registered name, `package.module:object` (looked up in the current folder first), or a name with one
                of the prefixes.

        Raises:
            UserError: there is no such object, or its module cannot be imported.
        """
        entry = self.entries.get(name)
        if entry is not None:
            importlib.import_module(entry.module)
            return self._objects[name]
        if problem := self.problem(name):
            raise UserError(f"{self.setting}: {problem}")
        prefix, _, rest = name.partition(":")
        if prefix in self._prefixes:
            return importlib.import_module(self._prefixes[prefix]).from_library(rest)
        return _imported(self.setting, name)

    def checked_options(self, name: str, options: Mapping[str, Any], given: Collection[str]) -> dict[str, Any]:
        """Returns options as the parameters of an object read them.

        Args:
            name: of the object.
            options: as in the config.
            given: parameters that the program itself passes.

        Raises:
            UserError: an option is unknown, missing or of the wrong type; one line each.
        """
        return check_options(self.load(name), options, given, self._options)


def check_options(target: Any, options: Mapping[str, Any], given: Collection[str], where: str) -> dict[str, Any]:
    """Checks options against the typed parameters of a class or function; see `Registry.checked_options`."""
    try:
        fields, is_open = _parameters(target, given)
        config = ConfigDict(extra="allow" if is_open else "forbid", strict=True, arbitrary_types_allowed=True)
        model = create_model("Options", __config__=config, **fields)
        text = json.dumps(dict(options), default=str)  # as JSON, in which a list may stand for a tuple, as in YAML
    except Exception as error:  # whatever a user's object makes of it: no signature, unknown types, private names
        name = getattr(target, "__qualname__", type(target).__name__)
        raise UserError(f"{where}: the parameters of {name} cannot be read: {error}") from None
    try:
        checked = model.model_validate_json(text)
    except ValidationError as error:
        from aal.config.error_lines import line_of

        known = ", ".join(fields) or "none"
        lines = [(key, text) for key, text in map(line_of, error.errors())]
        raise UserError(
            *(
                f"{where}.{key}: " + (f"no such option; there are: {known}" if "no such setting" in text else text)
                for key, text in lines
            )
        ) from None
    return {key: getattr(checked, key) for key in {*fields, *options} if key in options}


def _parameters(target: Any, given: Collection[str]) -> tuple[dict[str, Any], bool]:
    """Returns the type and default of each parameter but those that are given, and whether any others are taken."""
    signature = inspect.signature(target)
    function = target.__init__ if inspect.isclass(target) else target
    annotations = {key: hint for key, hint in getattr(function, "__annotations__", {}).items() if key not in given}
    # Of the options alone: what the program passes may be imported for type checkers only.
    options_of = types.SimpleNamespace(__annotations__=annotations)
    hints = get_type_hints(options_of, getattr(function, "__globals__", {}), include_extras=True)
    fields: dict[str, Any] = {}
    is_open = False
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            is_open = True
        elif parameter.name not in given and parameter.kind is not parameter.VAR_POSITIONAL:
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[parameter.name] = (hints.get(parameter.name, Any), default)
    return fields, is_open


def _imported(setting: str, name: str) -> Any:
    module, _, attribute = name.partition(":")
    try:
        here = os.getcwd()
    except OSError:
        raise UserError(f"{setting}: {name}: the folder that this program was started in is gone") from None
    sys.path.insert(0, here)
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and module.startswith(error.name):
            raise UserError(
                f"{setting}: {name}: there is no module {module} in {here} or on PYTHONPATH; start from its folder"
            ) from None
        raise UserError(f"{setting}: {name}: {module} needs {error.name}, which is not installed") from None
    except (Exception, SystemExit) as error:
        raise UserError(f"{setting}: {name}: importing {module} failed: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(here)
        if here not in sys.path:
            sys.path.append(here)  # for what the module imports later
    if not hasattr(found, attribute):
        raise UserError(
            f"{setting}: {name}: {module} ({getattr(found, '__file__', 'built in')}) defines no {attribute}"
        )
    return getattr(found, attribute)


def _plain(name: str) -> str:
    return re.sub(r"[-_ ]", "", name).lower()


SCHEDULES = Registry("SCHEDULES", "mode", "aal.coordination.schedules")
TRAINERS = Registry("TRAINERS", "trainer", "aal.app.server_train", "aal.training.trainers")
STRATEGIES = Registry("STRATEGIES", "query_strategy", "aal.strategies")
AGGREGATIONS = Registry("AGGREGATIONS", "annotators.aggregation", "aal.aggregation", options="annotators.aggregation")
LABEL_SOURCES = Registry("LABEL_SOURCES", "annotators.source", "aal.annotators", options="annotators.options")
NETWORKS = Registry(
    "NETWORKS",
    "models",
    "aal.app.models",
    options="model_options",
    prefixes={
        "torchvision": "aal.training.torchvision_networks",
        "mobilenet_v3": "aal.training.mobile_networks",
    },
)
IMAGE_SETS = Registry(
    "IMAGE_SETS",
    "data_type",
    "aal.app.data",
    options="data_options",
    prefixes={"torchvision": "aal.app.data.torchvision_sets"},
)
PARTITIONS = Registry("PARTITIONS", "federated.partition", "aal.app.data.partitions", options="federated")
