"""YAML as settings need it: text, numbers, true or false, lists and mappings, of a size that a person writes."""

import re
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from aal.config.errors import UserError

LONGEST_TEXT = 50_000  # characters; PyYAML reads some 50,000 a second
MOST_VALUES = 10_000  # with everything that aliases repeat
DEEPEST = 20  # lists and mappings in one another
WIDEST_NUMBER = 64  # bits
SURROGATE = re.compile("[\ud800-\udfff]")
TAGS = [f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map")]


class _Loader(yaml.SafeLoader):
    """Safe YAML without dates, sets and binary data; it refuses a key given twice and reads 1e-3 as a number."""

    yaml_constructors = {tag: yaml.SafeLoader.yaml_constructors[tag] for tag in (*TAGS, None)}  # noqa: RUF012
    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None:
            _measure(node, {}, ())
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConstructorError(None, None, "a key must be text", key_node.start_mark)
            if key_node.value in seen:
                raise ConstructorError(None, None, f"{key_node.value} is given twice", key_node.start_mark)
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
        except (ValueError, LookupError) as error:  # `!!int ""`, `!!bool 3`: a value that its tag does not fit
            tag = node.tag.rpartition(":")[2]
            raise ConstructorError(None, None, f"a value is not of the kind !!{tag}", node.start_mark) from error
        if isinstance(value, str) and SURROGATE.search(value):
            raise ConstructorError(None, None, "text holds half a character", node.start_mark)
        if isinstance(value, int) and value.bit_length() > WIDEST_NUMBER:
            raise ConstructorError(None, None, "a number is too large", node.start_mark)
        return value


# As YAML 1.2 does.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d[\d_]*(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def _measure(node: yaml.Node, sizes: dict[int, int], above: tuple[int, ...]) -> int:
    """Returns how many values a node stands for, before any is made: aliases may repeat them a billion times."""
    if id(node) in above or len(above) > DEEPEST:
        raise ConstructorError(None, None, f"is nested more than {DEEPEST} deep", node.start_mark)
    if id(node) not in sizes:
        inside = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = [part for pair in inside for part in pair] if isinstance(node, yaml.MappingNode) else inside
        sizes[id(node)] = 1 + sum(_measure(part, sizes, (*above, id(node))) for part in parts)
        if sizes[id(node)] > MOST_VALUES:
            raise ConstructorError(None, None, f"holds more than {MOST_VALUES} values", node.start_mark)
    return sizes[id(node)]


def parse(text: str, where: str) -> object:
    """Returns the value that YAML text stands for.

    Args:
        text: of a file or of one value.
        where: what the messages name.

    Raises:
        UserError: it is no such YAML, or larger than settings can be.
    """
    if len(text) > LONGEST_TEXT:
        raise UserError(f"{where}: is longer than {LONGEST_TEXT} characters; settings are not")
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a subclass of SafeLoader
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"{where}{place}: is not YAML: {problem}") from None
