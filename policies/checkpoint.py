"""Checkpoints: a folder of four plain files that is enough to run a policy anywhere.

``config.yaml``: ``policy: <name in POLICIES>`` and the fields of its config dataclass; ``spec.json``: the `IOSpec`;
``weights.safetensors``: parameters and buffers, normalisation statistics included; ``meta.json``: where it came from.
Nothing is ever pickled or unpickled.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from omnibody.policies.files import atomic_folder
from omnibody.policies.policy import Policy
from omnibody.policies.table import POLICIES
from omnibody.robots.errors import UserError, unknown
from omnibody.robots.spec import IOSpec

CONFIG, SPEC, WEIGHTS, META = "config.yaml", "spec.json", "weights.safetensors", "meta.json"
FILES = (CONFIG, SPEC, WEIGHTS, META)
HUB = "hf://"
PICKLE_SUFFIXES = {".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".joblib"}
PICKLE_STARTS = (b"PK\x03\x04", b"\x80")  # torch.save's zip archive, and a bare pickle


class CheckpointError(UserError, RuntimeError):
    """A checkpoint that cannot be used, with the file and what is wrong with it."""


def save_pretrained(policy: Policy, path: Path | str, meta: dict[str, Any]) -> None:
    """Write the checkpoint of ``policy`` to the folder ``path``, in place of an older one.

    ``meta`` is anything JSON can hold: dataset, seed, git revision, figures.
    """
    header = {"policy": policy_name(policy.cfg)}
    fields: Any = OmegaConf.to_container(OmegaConf.structured(policy.cfg), enum_to_str=True)
    weights = {key: tensor.detach().cpu().clone().contiguous() for key, tensor in policy.state_dict().items()}
    with atomic_folder(Path(path)) as folder:
        (folder / CONFIG).write_text(yaml.safe_dump({**header, **fields}, sort_keys=False), encoding="utf-8")
        (folder / SPEC).write_text(policy.spec.to_json(), encoding="utf-8")
        (folder / META).write_text(json.dumps(meta, indent=1), encoding="utf-8")
        save_file(weights, folder / WEIGHTS)


def load_policy(source: Path | str, spec: IOSpec | None = None) -> Policy:
    """The policy of a checkpoint folder, or of ``hf://owner/name`` on the Hugging Face Hub: on the CPU, in eval mode.

    With ``spec``, what the caller will feed it and expect back, a mismatch is refused. Raises `CheckpointError`.
    """
    folder = _download(str(source).removeprefix(HUB)) if str(source).startswith(HUB) else Path(source)
    _check_files(folder)
    own = read_spec(folder)
    if spec is not None and (difference := own.mismatch(spec)):
        raise CheckpointError(f"{folder} does not fit: {difference}")
    policy = _build(folder, read_config(folder), own)
    _load_weights(policy, folder / WEIGHTS)
    return policy.eval()


def push_to_hub(path: Path | str, repo_id: str, private: bool = False) -> str:
    """Upload a checkpoint folder to ``owner/name`` on the Hugging Face Hub; returns its address.

    The token is the one of ``huggingface-cli login`` or ``HF_TOKEN``.
    """
    from huggingface_hub import HfApi  # a robot that only runs policies does not need it

    load_policy(path)
    hub = HfApi()
    address = hub.create_repo(repo_id, private=private, exist_ok=True)
    hub.upload_folder(repo_id=repo_id, folder_path=path, allow_patterns=list(FILES))
    return str(address)


def policy_name(cfg: Any) -> str:
    """The name in ``POLICIES`` of the policy that ``cfg`` configures."""
    target = f"{type(cfg).__module__}:{type(cfg).__qualname__}"
    for name, entry in POLICIES.items():
        if entry == target:
            return name
    raise CheckpointError(f"{target} is not in POLICIES; add it to policies/table.py to make it loadable by name")


def read_config(folder: Path) -> Any:
    """The config dataclass of a checkpoint folder."""
    path = folder / CONFIG
    try:
        raw = yaml.safe_load(_read(path))
    except yaml.YAMLError as error:
        raise CheckpointError(f"{path}: not YAML: {_one_line(error)}") from error
    if not isinstance(raw, dict) or not isinstance(raw.get("policy"), str):
        raise CheckpointError(f"{path}: wanted a key 'policy' that names one of {', '.join(POLICIES)}")
    name = raw.pop("policy")
    if name not in POLICIES:
        raise CheckpointError(f"{path}: {unknown('policy', name, POLICIES)}")
    module, _, cls = POLICIES[name].partition(":")
    schema = OmegaConf.structured(getattr(importlib.import_module(module), cls))
    try:
        return OmegaConf.to_object(OmegaConf.merge(schema, raw))
    except (OmegaConfBaseException, ValueError) as error:
        raise CheckpointError(f"{path}: not a configuration of {name}: {_one_line(error)}") from error


def read_spec(folder: Path) -> IOSpec:
    """What the policy of a checkpoint folder takes in and gives out."""
    path = folder / SPEC
    try:
        return IOSpec.from_json(_read(path))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path}: not an IOSpec: {_one_line(error)}") from error


def read_meta(folder: Path) -> dict[str, Any]:
    """What the checkpoint says about its origin."""
    path = folder / META
    try:
        return json.loads(_read(path))
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON: {_one_line(error)}") from error


def _check_files(folder: Path) -> None:
    if not folder.is_dir():
        raise CheckpointError(f"no checkpoint folder {folder}; wanted a folder with {', '.join(FILES)}")
    pickles = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLE_SUFFIXES)
    if pickles:
        raise CheckpointError(
            f"{folder} holds {pickles[0]}, which may be a pickle and run code; wanted {WEIGHTS} alone"
        )
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder} lacks {', '.join(missing)}; it was cut short or is not a checkpoint of Omnibody"
        )
    read_meta(folder)


def _build(folder: Path, cfg: Any, spec: IOSpec) -> Policy:
    try:
        return cfg.build(spec)
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{folder}: {CONFIG} and {SPEC} do not make a policy: {_one_line(error)}") from error


def _load_weights(policy: Policy, path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(9)
        # A safetensors file begins with 8 bytes of length, which may look like anything, and then its JSON header.
        if start.startswith(PICKLE_STARTS) and start[8:] != b"{":
            raise CheckpointError(f"{path} is a pickle, which may run code; wanted safetensors")
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is cut short or damaged ({_one_line(error)}); copy it again") from error
    wanted = policy.state_dict()
    if difference := _difference(wanted, weights):
        raise CheckpointError(f"{path} does not fit {CONFIG}: {difference}")
    policy.load_state_dict(weights)


def _difference(wanted: dict[str, Tensor], came: dict[str, Tensor]) -> str:
    for key, tensor in wanted.items():
        if key not in came:
            return f"{key!r} is missing"
        if came[key].shape != tensor.shape:
            return f"{key!r}: wanted shape {tuple(tensor.shape)}, came {tuple(came[key].shape)}"
        if came[key].dtype != tensor.dtype:
            return f"{key!r}: wanted {tensor.dtype}, came {came[key].dtype}"
    extra = sorted(came.keys() - wanted.keys())
    return f"{extra[0]!r} came, but the policy has no such weight" if extra else ""


def _download(repo_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo_id, allow_patterns=list(FILES)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        raise CheckpointError(f"{HUB}{repo_id} cannot be fetched: {_one_line(error)}") from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read: {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
