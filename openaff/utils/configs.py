"""Typed settings: dataclasses, filled from YAML, from dicts and from ``key=value`` overrides."""

import dataclasses
import functools
import math

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import (
    ConfigKeyError,
    ConfigTypeError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from .errors import UserError, first_line, one_line, suggest
from .files import read_text

MOST_VALUES = 100_000  # of a YAML file


class Section:
    """A dataclass of settings, some of them sections themselves.

    Subclasses extend :meth:`check`.  A section has the rules for its own settings.
    """

    def check(self, prefix=""):
        """Reject numbers that are infinite or NaN, and whatever a section below rejects.

        ``prefix`` stands before the names of settings in messages, such as ``"optimizer."``.
        """
        for key, value in vars(self).items():
            if isinstance(value, Section):
                value.check(f"{prefix}{key}.")
                continue
            for number in value if isinstance(value, list) else [value]:
                if isinstance(number, list):
                    raise UserError(f"{prefix}{key} must be a flat list, not {value}")
                if isinstance(number, float) and not math.isfinite(number):
                    raise UserError(f"{prefix}{key} must be finite, not {value}")

    def one_of(self, key, known):
        """A rule for :func:`require`: the setting is one of ``known``."""
        value, names = getattr(self, key), ", ".join(map(str, filter(None, known)))
        return key, value in known, f"must be one of {names}, not {value!r}"


def require(prefix, *rules):
    """Reject the first rule that does not hold; a rule is (setting, whether it holds, words)."""
    for key, holds, rule in rules:
        if not holds:
            raise UserError(f"{prefix}{key} {rule}")


def parse_yaml(text):
    """The value of a YAML text; one that its aliases blow up is refused.

    Raises
    ------
    yaml.YAMLError, ValueError, RecursionError
        It is not YAML, or would have more than 100,000 values.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _count(node, {}) > MOST_VALUES:
            raise ValueError(f"its aliases make more than {MOST_VALUES:,} values of it")
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _count(node, known):
    """How many values a YAML node has, once its aliases are written out."""
    if id(node) not in known:
        _refuse_doubles(node)
        known[id(node)] = math.inf  # until it is counted: an alias of itself
        parts = [] if isinstance(node, yaml.ScalarNode) else node.value
        flat = [each for part in parts for each in (part if isinstance(part, tuple) else (part,))]
        known[id(node)] = 1 + sum(_count(each, known) for each in flat)
    return known[id(node)]


def _refuse_doubles(node):
    """Refuse a key that a mapping has twice: YAML forbids it, and PyYAML takes the last one."""
    keys = set()
    for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
        if isinstance(key, yaml.ScalarNode):
            if key.value in keys:
                problem = f"the key {key.value!r} is there twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            keys.add(key.value)


def read_yaml(path):
    """Read a YAML file that holds a mapping.

    Raises
    ------
    UserError
        The file is missing, not YAML, or not a mapping.
    """
    text = read_text(path)
    try:
        values = parse_yaml(text)
    except (ValueError, RecursionError) as error:  # such as the date 2020-13-45
        raise UserError(f"{path}: not YAML: {one_line(error)}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else path
        reason = getattr(error, "problem", None) or one_line(error)
        raise UserError(f"{where}: not YAML: {reason}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: a config is a mapping of keys to values")
    return values


def parse_options(texts):
    """A network's options from ``key=value`` strings, with values in YAML."""
    options = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise UserError(f"--option {text!r}: write key=value, such as width_multiplier=1")
        if key == "pretrained":
            raise UserError(f"--option {text!r}: weights are no option of a network")
        if key == "name":
            raise UserError(f"--option {text!r}: the network already has a name")
        try:
            options[key] = parse_yaml(value)
        except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: such as 2020-13-45
            raise UserError(f"--option {text!r}: the value is not YAML") from None
    return options


def build(schema, values, overrides=(), where="config"):
    """Fill a ``schema``, a :class:`Section` class, from a mapping and overrides, without checks.

    Parameters
    ----------
    schema : type
        The dataclass.
    values : dict
        Settings by name, sections as dicts.
    overrides : sequence of str
        ``section.key=value``, with the value in YAML.
    where : str
        The beginning of messages, such as the file's name.

    Raises
    ------
    UserError
        A key is unknown (the message names the nearest one), or a value is missing or mistyped.
    """
    for override in overrides:
        if "=" not in override or override.startswith("-"):
            raise UserError(
                f"{override!r} is not an override: write key=value, such as optimizer.lr=0.1"
            )
    try:
        for override in overrides:
            parse_yaml(override.partition("=")[2])
        given = OmegaConf.create(values), OmegaConf.from_dotlist(list(overrides))
        for each in given:
            _check_sections(schema, each, where)
        return OmegaConf.to_object(OmegaConf.merge(defaults(schema), *given))
    except ConfigKeyError as error:
        raise UserError(_unknown_key(schema, where, error.full_key)) from None
    except MissingMandatoryValue as error:
        raise UserError(f"{where}: {error.full_key} is not set") from None
    except (
        OmegaConfBaseException,
        yaml.YAMLError,
        TypeError,  # such as a list instead of a section
        ValueError,
        RecursionError,
    ) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{where}: {_reason(error)}") from None


def _check_sections(schema, given, where):
    for section in dataclasses.fields(schema):
        name, kind = section.name, section.default_factory
        if not dataclasses.is_dataclass(kind) or name not in given:
            continue
        if not OmegaConf.is_dict(given[name]):
            raise UserError(
                f"{where}: {name} is a section of settings, such as "
                f"{name}.{dataclasses.fields(kind)[0].name}, not {given[name]!r}"
            )


@functools.lru_cache(maxsize=None)
def defaults(schema):
    """The defaults of a dataclass, which take most of the time; ``merge`` copies them."""
    return OmegaConf.structured(schema)


def check_types(config):
    """Reject values of the wrong type in a config built in Python."""
    try:
        OmegaConf.structured(config)
    except (ConfigTypeError, OmegaConfBaseException, TypeError, ValueError) as error:
        raise UserError(f"config: {_reason(error)}") from None


def _reason(error):
    key = getattr(error, "full_key", None)
    return f"{key}: {first_line(error)}" if key else first_line(error)


def _unknown_key(schema, where, full_key):
    known, parent = schema, []
    fields = {f.name: f for f in dataclasses.fields(known)}
    for part in full_key.split("."):
        if part not in fields:
            break
        known = fields[part].default_factory
        if not dataclasses.is_dataclass(known):
            break
        parent.append(part)
        fields = {f.name: f for f in dataclasses.fields(known)}
    names = [".".join(parent + [name]) for name in fields]
    elsewhere = [name for name in _names(schema) if name.split(".")[-1] == full_key.split(".")[-1]]
    return "{}: unknown key {!r}{} (known: {})".format(
        where, full_key, suggest(full_key, names, first=elsewhere), ", ".join(names)
    )


def _names(schema, prefix=""):
    """The full names of all settings, such as ``optimizer.lr``."""
    names = []
    for each in dataclasses.fields(schema):
        if dataclasses.is_dataclass(each.default_factory):
            names += _names(each.default_factory, f"{prefix}{each.name}.")
        else:
            names.append(prefix + each.name)
    return names
