"""The keys of a config dataclass: their types, defaults and help lines, and the tables a key may choose from."""

from __future__ import annotations

import ast
import dataclasses
import enum
import importlib
import inspect
import io
import textwrap
import tokenize
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from omnibody.robots.errors import unknown

TABLES = {
    "policy": "omnibody.policies.table:POLICIES",
    "task": "omnibody.sim_tasks.table:TASKS",
    "own_body": "omnibody.training.config_keys:OWN_BODIES",
}
OWN_BODIES = {"custom": "omnibody.robots.custom:CustomRobotCfg"}

# Metadata of a field that names a body (str) or several (list[str]): words ``robot.<key>=`` then describe one of the
# user's own, and its reference takes a name's place.
BODY = {"body": True}


@dataclass
class OwnBody:
    """A body of the user's own, key by key."""

    robot: Any = dataclasses.field(default=MISSING, metadata={"table": "own_body", "default": "custom"})


@dataclass(frozen=True)
class Key:
    """One thing that ``name=value`` can set; ``default`` is ``omegaconf.MISSING`` for a required key."""

    name: str
    type: Any
    default: Any
    help: str

    @property
    def type_name(self) -> str:
        """The type as a user reads it; the names to choose from, for an Enum."""
        if isinstance(self.type, type) and issubclass(self.type, enum.Enum):
            return "|".join(self.type.__members__)
        if self.type is Any:
            return "value"
        return self.type.__name__ if _is_plain(self.type) else str(self.type).replace("typing.", "")

    @property
    def is_text(self) -> bool:
        """Whether the value is a str (or null)."""
        return self.type is str or set(typing.get_args(self.type)) == {str, type(None)}

    @property
    def is_dict(self) -> bool:
        """Whether names below this one can be chosen freely."""
        return typing.get_origin(self.type) is dict


def load(target: str) -> Any:
    """The object that ``"module:name"`` points at; imports its module."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def group(table: str, default: str) -> Any:
    """A config field that holds the config of one member of a table (a key of ``TABLES``), chosen by its name.

    ``policy=beso`` chooses, ``policy.hidden=64`` sets a key of what was chosen.
    """
    return dataclasses.field(default=MISSING, metadata={"table": table, "default": default})


def group_defaults(cfg: type) -> dict[str, str]:
    """Field -> the member chosen by default, of every ``group`` field."""
    return {field.name: field.metadata["default"] for field in dataclasses.fields(cfg) if "table" in field.metadata}


def members(cfg: type, name: str) -> dict[str, str]:
    """The table behind the ``group`` field ``name``: member -> "module:Class"."""
    field = next(field for field in dataclasses.fields(cfg) if field.name == name)
    return typing.cast(dict[str, str], load(TABLES[field.metadata["table"]]))


def body_field(cfg: type) -> str:
    """The field with ``BODY`` metadata; empty if there is none."""
    return next((field.name for field in dataclasses.fields(cfg) if "body" in field.metadata), "")


def keys(cfg: type, choices: dict[str, str]) -> dict[str, Key]:
    """Every key of ``cfg`` by its dotted name; ``choices`` says which member each ``group`` field holds."""
    return {key.name: key for key in _walk(cfg, None, choices, "")}


def _walk(cfg: type, instance: Any, choices: dict[str, str], prefix: str) -> Iterator[Key]:
    """Keys of ``cfg`` with the values of ``instance`` as defaults, where there is one, otherwise its own."""
    hints, comments = typing.get_type_hints(cfg), _comments(cfg)
    for field in dataclasses.fields(cfg):
        kind, default = hints[field.name], _default(field) if instance is None else getattr(instance, field.name)
        name, comment = prefix + field.name, comments.get(field.name, "")
        if "table" in field.metadata:
            table = members(cfg, field.name)
            if choices[field.name] not in table:
                raise unknown(field.name, choices[field.name], table)
            yield Key(name, kind, choices[field.name], " ".join([comment, f"(one of {', '.join(table)})"]).strip())
            kind, default = load(table[choices[field.name]]), None
        else:
            yield Key(name, kind, default, comment)
        if dataclasses.is_dataclass(kind):
            inner = default if dataclasses.is_dataclass(default) else None
            yield from _walk(typing.cast(type, kind), inner, {}, f"{name}.")
        if "body" in field.metadata:
            # Nothing of it is required of those who give a name.
            own = _walk(load(OWN_BODIES["custom"]), None, {}, "robot.")
            yield from (dataclasses.replace(key, default="") if key.default == MISSING else key for key in own)


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return MISSING if field.default is dataclasses.MISSING else field.default


def _comments(cfg: type) -> dict[str, str]:
    """Field -> its comment in the source, base classes included."""
    found = {}
    for cls in [cls for cls in reversed(cfg.__mro__) if dataclasses.is_dataclass(cls)]:
        source = textwrap.dedent(inspect.getsource(cls))
        tokens = tokenize.generate_tokens(io.StringIO(source).readline)
        comments = {token.start[0]: token for token in tokens if token.type == tokenize.COMMENT}
        for node in typing.cast(ast.ClassDef, ast.parse(source).body[0]).body:
            if not isinstance(node, ast.AnnAssign):
                continue
            above = comments.get(node.lineno - 1)
            is_alone = above is not None and above.line.lstrip().startswith("#")
            comment = comments.get(node.end_lineno or 0) or (above if is_alone else None)
            if comment:
                found[ast.unparse(node.target)] = comment.string.lstrip("# ")
    return found


def _is_plain(kind: Any) -> bool:
    return isinstance(kind, type) and not isinstance(kind, types.GenericAlias)
