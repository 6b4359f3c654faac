"""Checkpoints: what is saved comes back, and whatever is wrong with one is said in a line, without running its code."""

import base64
import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from omnibody.policies import checkpoint
from omnibody.policies.batch import random_values
from omnibody.policies.checkpoint import CheckpointError, load_policy, read_meta, save_pretrained
from omnibody.policies.compass.base import CompassBaseCfg
from omnibody.policies.policy import Context, Policy
from omnibody.policies.table import POLICIES
from omnibody.robots.spec import Field, IOSpec
from omnibody.robots.table import load_robot
from omnibody.training.config import load


def tiny(name: str, spec: IOSpec) -> Policy:
    torch.manual_seed(1)
    return load(POLICIES[name]).tiny().build(spec).eval()


@pytest.fixture
def saved(tmp_path: Path, full_spec: IOSpec) -> Path:
    save_pretrained(tiny("compass_base", full_spec), tmp_path / "base", {"steps": 7})
    return tmp_path / "base"


def play(policy: Policy, spec: IOSpec) -> torch.Tensor:
    """Actions of three steps on fixed random observations."""
    generator = torch.Generator().manual_seed(0)
    state, actions = policy.begin(Context(load_robot("carrier")), 2), []
    for _ in range(3):
        obs = {key: random_values(field, (2,), generator) for key, field in spec.obs.items()}
        action, state = policy.act(obs, state)
        actions.append(action)
    return torch.stack(actions)


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_comes_back(name: str, tmp_path: Path, full_spec: IOSpec) -> None:
    policy = tiny(name, full_spec)
    save_pretrained(policy, tmp_path / name, {"steps": 7})
    loaded = load_policy(tmp_path / name)
    assert loaded.cfg == policy.cfg and type(loaded.cfg) is type(policy.cfg)
    assert loaded.spec == full_spec and not loaded.training
    assert read_meta(tmp_path / name) == {"steps": 7}
    assert sorted(file.name for file in (tmp_path / name).iterdir()) == sorted(checkpoint.FILES)
    with torch.no_grad():
        assert torch.equal(play(loaded, full_spec), play(policy, full_spec))
        for parameter in loaded.parameters():
            parameter.add_(0.3)
        assert not torch.equal(play(loaded, full_spec), play(policy, full_spec))  # the check is not blind


def test_settings_come_back_however_deep(tmp_path: Path, full_spec: IOSpec) -> None:
    cfg = CompassBaseCfg.tiny()
    cfg = replace(cfg, world=replace(cfg.world, hidden=20, action_in_gru=False), loss=replace(cfg.loss, kl=0.125))
    save_pretrained(cfg.build(full_spec), tmp_path / "base", {})
    assert load_policy(tmp_path / "base").cfg == cfg != CompassBaseCfg.tiny()
    raw = yaml.safe_load((tmp_path / "base/config.yaml").read_text())
    assert raw["policy"] == "compass_base" and raw["loss"]["kl"] == 0.125


def test_saving_again_replaces(saved: Path, full_spec: IOSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    other = replace(CompassBaseCfg.tiny(), policy_width=12).build(full_spec)

    def full_disk(*args: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr(checkpoint, "save_file", full_disk)
        save_pretrained(other, saved, {})
    assert load_policy(saved).cfg == CompassBaseCfg.tiny()  # the old one is whole
    save_pretrained(other, saved, {})
    assert load_policy(saved).cfg == other.cfg
    assert [p.name for p in saved.parent.iterdir()] == ["base"]


@pytest.mark.parametrize("name", checkpoint.FILES)
def test_a_missing_file_is_named(name: str, saved: Path) -> None:
    (saved / name).unlink()
    with pytest.raises(CheckpointError, match=f"lacks {name}"):
        load_policy(saved)


@pytest.mark.parametrize("name", checkpoint.FILES)
def test_a_file_cut_short_is_named(name: str, saved: Path) -> None:
    whole = (saved / name).read_bytes()
    for size in {0, 1, 7, len(whole) // 2, len(whole) - 2}:
        (saved / name).write_bytes(whole[:size])
        # Half a YAML or a JSON with its last bracket gone may still say everything: then it must load, or say what not.
        try:
            load_policy(saved)
        except CheckpointError as error:
            assert name in str(error) or checkpoint.CONFIG in str(error)
            assert "\n" not in str(error)
        else:
            assert name in (checkpoint.CONFIG, checkpoint.META) and size >= len(whole) - 2
    (saved / name).write_bytes(whole)
    load_policy(saved)


class Bomb:
    """A pickle of this writes the file ``fuse`` when it is loaded."""

    def __init__(self, fuse: Path) -> None:
        self.fuse = fuse

    def __reduce__(self) -> tuple:
        return Path.write_text, (self.fuse, "exploded")


def test_pickles_are_refused_unopened(saved: Path, tmp_path: Path) -> None:
    fuse = tmp_path / "fuse"
    bomb = pickle.dumps(Bomb(fuse))
    (saved / "weights.pt").write_bytes(bomb)
    with pytest.raises(CheckpointError, match="weights.pt, which may be a pickle"):
        load_policy(saved)
    (saved / "weights.pt").unlink()
    for save in (lambda path: path.write_bytes(bomb), lambda path: torch.save({"a": torch.ones(2)}, path)):
        save(saved / checkpoint.WEIGHTS)
        with pytest.raises(CheckpointError, match="is a pickle"):
            load_policy(saved)
    assert not fuse.exists()
    pickle.loads(bomb)
    assert fuse.exists()  # the bomb works


def test_other_weights_are_refused_with_both_shapes(saved: Path) -> None:
    weights = load_file(saved / checkpoint.WEIGHTS)
    key = next(k for k, v in weights.items() if v.ndim == 2)
    rows, columns = weights[key].shape
    bad = {
        rf"'{key}': wanted shape \({rows}, {columns}\), came \({rows}, {columns - 1}\)": {key: weights[key][:, 1:]},
        f"'{key}': wanted torch.float32, came torch.float16": {key: weights[key].half()},
        "'stranger' came, but the policy has no such weight": {"stranger": torch.ones(1)},
    }
    for message, change in bad.items():
        save_file({k: v.contiguous() for k, v in {**weights, **change}.items()}, saved / checkpoint.WEIGHTS)
        with pytest.raises(CheckpointError, match=message):
            load_policy(saved)
    save_file({k: v for k, v in weights.items() if k != key}, saved / checkpoint.WEIGHTS)
    with pytest.raises(CheckpointError, match=f"'{key}' is missing"):
        load_policy(saved)


def test_bad_settings_are_told_in_a_line(saved: Path) -> None:
    raw = yaml.safe_load((saved / checkpoint.CONFIG).read_text())
    bad = {
        "unknown policy 'compas_base'; did you mean compass_base": {**raw, "policy": "compas_base"},
        "wanted a key 'policy'": {k: v for k, v in raw.items() if k != "policy"},
        "not a configuration of compass_base.*widht": {**raw, "widht": 3},
        "not a configuration of compass_base.*policy_width": {**raw, "policy_width": "wide"},
        "does not fit config.yaml": {**raw, "policy_width": raw["policy_width"] + 1},
    }
    for message, changed in bad.items():
        (saved / checkpoint.CONFIG).write_text(yaml.safe_dump(changed))
        with pytest.raises(CheckpointError, match=message) as caught:
            load_policy(saved)
        assert "\n" not in str(caught.value)


def test_another_spec_is_refused_with_both_values(saved: Path, full_spec: IOSpec) -> None:
    load_policy(saved, full_spec)
    depth = Field((8, 32), "float32", "m", (0.0,), (10.0,))
    with pytest.raises(CheckpointError, match=r"'depth' shape: wanted \(16, 64\), came \(8, 32\)"):
        load_policy(saved, replace(full_spec, obs={**full_spec.obs, "depth": depth}))
    with pytest.raises(CheckpointError, match="rate_hz: wanted 10.0, came 50.0"):
        load_policy(saved, replace(full_spec, rate_hz=50.0))
    with pytest.raises(CheckpointError, match="no checkpoint folder"):
        load_policy(saved.parent / "nothing")


class Hub(BaseHTTPRequestHandler):
    """The few addresses of the Hugging Face Hub that an upload and a download use, in memory."""

    protocol_version = "HTTP/1.1"
    files: dict[str, bytes] = {}

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.endswith("/preupload/main"):
            asked = [file["path"] for file in json.loads(body)["files"]]
            self.answer({"files": [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in asked]})
        elif self.path.endswith("/commit/main"):
            for row in map(json.loads, body.splitlines()):
                if row["key"] == "file":
                    self.files[row["value"]["path"]] = base64.b64decode(row["value"]["content"])
            self.answer({"commitUrl": f"{self.base}/me/base/commit/{'a' * 40}", "commitOid": "a" * 40})
        else:
            self.answer({"url": f"{self.base}/me/base", "name": "me/base", "id": "me/base"})

    def do_GET(self) -> None:
        name = self.path.partition("?")[0].rpartition("/")[2]
        if "/resolve/" in self.path:
            self.reply(self.files[name], {"ETag": f'"{name}"', "X-Repo-Commit": "a" * 40})
        elif "/tree/" in self.path:
            sizes = {name: len(body) for name, body in self.files.items()}
            self.answer([{"type": "file", "path": k, "size": size, "oid": k} for k, size in sizes.items()])
        else:
            siblings = [{"rfilename": name} for name in self.files]
            self.answer({"id": "me/base", "sha": "a" * 40, "siblings": siblings, "private": False, "tags": []})

    do_HEAD = do_GET

    @property
    def base(self) -> str:
        return f"http://{self.headers['Host']}"

    def answer(self, value: object) -> None:
        self.reply(json.dumps(value).encode(), {"Content-Type": "application/json"})

    def reply(self, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    Hub.files = {}
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


ROUND_TRIP = """
import sys
from omnibody.policies.checkpoint import load_policy, push_to_hub, save_pretrained
push_to_hub(sys.argv[1], "me/base")
save_pretrained(load_policy("hf://me/base"), sys.argv[2], {})
"""


def test_over_the_hub_and_back(saved: Path, tmp_path: Path, hub: str) -> None:
    """The real client of huggingface_hub against a server on this machine."""
    env = {**os.environ, "HF_ENDPOINT": hub, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": "hf_test"}
    env |= {"HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
    (saved / "notes.txt").write_text("not part of a checkpoint")
    command = [sys.executable, "-c", ROUND_TRIP, str(saved), str(tmp_path / "back")]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(Hub.files) == set(checkpoint.FILES)
    assert (tmp_path / "back/weights.safetensors").read_bytes() == (saved / "weights.safetensors").read_bytes()
    shutil.rmtree(saved)


def test_a_hub_out_of_reach_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match="hf://no/../such cannot be fetched"):
        load_policy("hf://no/../such")
