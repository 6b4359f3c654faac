"""Configuration: a dataclass, ``key=value`` words from the command line, and an experiment file, merged by Hydra.

How to write a config dataclass (plain, not frozen; it stands at the top of the file that uses it)::

    @dataclass
    class TrainConfig:
        '''Train a policy on a dataset.'''

        data: str = MISSING  # folder of the dataset                        <- required (omegaconf.MISSING)
        lr: float = 3e-4  # step size of AdamW                              <- the comment is the key's help line
        robots: list[str] = field(default_factory=lambda: ["carrier"])  # bodies to train on
        optimizer: AdamWConfig = field(default_factory=AdamWConfig)         <- nested: optimizer.lr=1e-4
        policy: Any = group("policy", "compass")  # what to train           <- a table's member and its own keys
        robot: str = field(default="go2", metadata=BODY)  # the body         <- or robot.mjcf=<file> robot.base=<kind>

        def __post_init__(self) -> None:
            if self.lr <= 0: raise ValueError(f"lr: wanted more than 0, came {self.lr}")

A key's one-line help is the ``#`` comment behind its field, or the comment line right above it.
Types: int, float, bool, str, ``X | None``, Enum, list, dict[str, X] and nested dataclasses. OmegaConf refuses Literal
and gives lists for tuples, so use str or list and check them in ``__post_init__``, where a ValueError is the user's.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from hydra import compose, initialize
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from omnibody.robots.errors import UserError, unknown
from omnibody.training.config_keys import BODY, Key, OwnBody, body_field, group, group_defaults, keys, load, members

__all__ = ["BODY", "group", "load", "parse"]

T = TypeVar("T")

PACKAGE = Path(__file__).resolve().parents[1]  # the folder that holds policies/, training/, ...


def parse(cfg: type[T], argv: Sequence[str], *, experiment_dir: Path | None = None) -> T:
    """The config of type ``cfg`` (a dataclass) that the words of ``argv`` ask for, nested dataclasses included.

    Words are ``key=value``, ``--flag`` for ``flag=true`` of a bool key, ``--help`` (prints all keys, exits) and
    ``experiment=<name>``: the file ``<experiment_dir>/<name>.yaml`` (default: of the package, as in
    ``experiment=policies/compass/il``) or a path that ends in ``.yaml``. Words win over the experiment, the experiment
    over the defaults. Raises ``UserError`` for an unknown key, a wrong type or a missing value.
    """
    values = _split(cfg, [word for word in argv if word not in ("--help", "-h")])
    experiment = _read_experiment(values.pop("experiment", ""), experiment_dir or PACKAGE)
    choices = _choices(cfg, experiment, values)
    if "--help" in argv or "-h" in argv:
        print("\n".join(_help(cfg, keys(cfg, choices))))
        raise SystemExit(0)
    own = _own_body(body_field(cfg), experiment, values)
    return typing.cast(T, _make(cfg, choices, experiment, values, own))


def _own_body(field: str, experiment: dict[str, Any], values: dict[str, str]) -> str:
    """The reference of the body that words ``robot.<key>`` describe, which are taken out; empty without any."""
    words = {name: values.pop(name) for name in list(values) if field and name.startswith("robot.")}
    setting = {"robot": experiment.pop("robot")} if field and isinstance(experiment.get("robot"), dict) else {}
    if field == "robot" and field in values:
        if words:
            raise UserError(f"robot: wanted a name or {next(iter(words))}=..., came both")
        return ""
    if not words and not setting:
        return ""
    body = _make(OwnBody, group_defaults(OwnBody), setting, words)
    return typing.cast(str, body.robot.reference())


def _make(cfg: type, choices: dict[str, str], experiment: dict[str, Any], values: dict[str, str], own: str = "") -> Any:
    known = keys(cfg, choices)
    settings = _flatten(experiment, known)
    used = {name: _find(name, known) for name in (*settings, *values)}
    words = [_word(used[name], value, in_dict=name not in known) for name, value in values.items()]
    try:
        composed = _compose(cfg, choices, experiment, words)
        if own:
            field = body_field(cfg)
            others = list(composed[field]) if field in used else []
            composed[field] = own if known[field].is_text else [*others, own]
        return OmegaConf.to_object(composed)
    except (HydraException, OmegaConfBaseException) as error:
        raise _explained(error, known | used, settings | values) from error
    except ValueError as error:
        raise UserError(str(error)) from error


def _split(cfg: type, words: Sequence[str]) -> dict[str, str]:
    """Key -> value, as text."""
    values = {}
    names = [field.name for field in dataclasses.fields(cfg)]
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        if word.startswith("--") and not equals:
            if typing.get_type_hints(cfg).get(name) is not bool:
                raise unknown("option", word, ["--help", *(f"{name}=" for name in names)])
            value = "true"
        elif not equals or word.startswith("--"):
            raise UserError(f"wanted key=value, came {word!r}; keys: {', '.join(names)}")
        values[name] = value
    return values


def _read_experiment(name: str, folder: Path) -> dict[str, Any]:
    if not name:
        return {}
    path = Path(name).expanduser() if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not path.is_file():
        raise unknown("experiment", name, _experiments(folder))
    try:
        raw = OmegaConf.to_container(OmegaConf.load(path))
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise UserError(f"{path}: wanted keys and values, came a {type(raw).__name__}")
    return {str(key): value for key, value in raw.items()}


def _experiments(folder: Path) -> list[str]:
    """Names of the package's experiments; in the named folders only, as a checkout may hold environments too."""
    files = (file for top in ("policies", "sim_tasks", "training") for file in (folder / top).rglob("*.yaml"))
    return [file.relative_to(folder).with_suffix("").as_posix() for file in files]


def _choices(cfg: type, experiment: dict[str, Any], values: dict[str, str]) -> dict[str, str]:
    """Group field -> the member chosen; an experiment chooses in Hydra's own way, by its ``defaults`` list."""
    choices = group_defaults(cfg)
    for choice in experiment.pop("defaults", []):
        choices |= choice
    return {name: values.pop(name, member) for name, member in choices.items()}


def _find(name: str, known: dict[str, Key]) -> Key:
    """The key of that name; below a dict any name is one."""
    owner = known.get(name.rpartition(".")[0])
    if name in known:
        return known[name]
    if owner and owner.is_dict:
        return Key(name, typing.get_args(owner.type)[1], MISSING, "")
    same_leaf = [key for key in known if key.endswith(f".{name}")]
    if same_leaf:
        raise UserError(f"unknown key {name!r}; did you mean {', '.join(same_leaf)}?")
    raise unknown("key", name, known)


def _flatten(tree: dict[str, Any], known: dict[str, Key], prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value of an experiment; a mapping below a dict key is a value."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        key = known.get(f"{prefix}{name}")
        if isinstance(value, dict) and not (key and key.is_dict):
            flat |= _flatten(value, known, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _word(key: Key, value: str, in_dict: bool) -> str:
    """An override for Hydra; text is quoted, so that paths with blanks, brackets, commas or ``~`` need no care."""
    is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    came = value
    if key.is_text and not is_quoted and not (value == "null" and key.type is not str):
        # In Hydra's quotes, backslashes count only before a quote, and are doubled there.
        value = "'" + re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), value) + "'"
    if in_dict:
        owner, _, leaf = key.name.rpartition(".")
        word = f"++{owner}={{{leaf}: {value}}}"
    else:
        word = f"{'++' if key.is_dict else ''}{key.name}={value}"  # to a dict Hydra adds only when told to
    wanted = f"{key.name}: wanted {key.type_name}, came {came}"
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException as error:
        raise UserError(f"{wanted}, which cannot be read") from error
    if override.is_sweep_override():
        raise UserError(f"{wanted}; a list is written [a,b]")
    return word


def _compose(cfg: type, choices: dict[str, str], experiment: dict[str, Any], words: list[str]) -> DictConfig:
    store = ConfigStore.instance()
    store.store(name="schema", node=cfg)
    for name in choices:
        for member, target in members(cfg, name).items():
            # Not under the field's own name: Hydra would take a later config's plain key of that name for a group.
            folder, _, leaf = f"choice/{name}/{member}".rpartition("/")
            store.store(group=folder, name=leaf, node=load(target), package=name)
    chosen = [{f"choice/{name}": member} for name, member in choices.items()]
    store.store(name="root", node={"defaults": ["schema", *chosen, "_self_"], **experiment})
    with initialize(version_base="1.3", config_path=None):
        return compose("root", overrides=words)


def _explained(error: BaseException, known: dict[str, Key], values: dict[str, Any]) -> UserError:
    """One line about the key that a Hydra or OmegaConf error is about."""
    cause: BaseException | None = error
    while cause is not None and not getattr(cause, "full_key", None):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return UserError(str(error).splitlines()[0])
    name = re.sub(r"\[\d+\]$", "", str(getattr(cause, "full_key", "")))
    wanted = known[name].type_name if name in known else "value"
    if name not in values:
        hint = known[name].help if name in known else ""
        return UserError(f"{name}: wanted {wanted}, nothing came; add {name}=<{hint or 'value'}>")
    return UserError(f"{name}: wanted {wanted}, came {values[name]!r}")


def _help(cfg: type, known: dict[str, Key]) -> Iterator[str]:
    yield inspect.cleandoc(cfg.__doc__ or cfg.__name__).splitlines()[0]
    rows = [
        (f"{key.name}=", key.type_name, "(required)" if key.default == MISSING else _text(key.default), key.help)
        for key in known.values()
        if not dataclasses.is_dataclass(key.type)
    ]
    rows.append(("experiment=", "str", "", "a file with settings, e.g. policies/compass/il"))
    widths = [min(max(len(row[column]) for row in rows), 40) for column in range(3)]
    for row in rows:
        yield "  " + "  ".join(text.ljust(width) for text, width in zip(row, (*widths, 0), strict=True)).rstrip()


def _text(default: Any) -> str:
    """A default as one would type it."""
    if default is None or isinstance(default, bool):
        return {None: "null", True: "true", False: "false"}[default]
    if isinstance(default, list | tuple):
        return f"[{','.join(_text(item) for item in default)}]"
    return str(getattr(default, "name", default))
