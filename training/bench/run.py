"""``omnibody bench <what> [key=value ...]``: picks the benchmark; each has keys of its own."""

from __future__ import annotations

from collections.abc import Callable

from omnibody.robots.errors import UserError, unknown
from omnibody.training.config import load

BENCHES = {
    "env": "omnibody.training.bench.env:main",
    "policy": "omnibody.training.bench.policy:main",
    "train": "omnibody.training.bench.train:main",
    "diffusion": "omnibody.training.bench.diffusion:main",
    "peers": "omnibody.training.bench.peers:main",
    "ros": "omnibody.deploy_ros.workstation.bench_ros:main",
}


def main(argv: list[str]) -> None:
    """Run the verb."""
    names = "|".join(BENCHES)
    if argv in (["--help"], ["-h"]):
        print(f"omnibody bench {names} [key=value ...]; omnibody bench <what> --help lists the keys")
        return
    if not argv or argv[0].startswith("-"):
        raise UserError(f"wanted what to measure, omnibody bench {names}, came {' '.join(argv) or 'nothing'}")
    if argv[0] not in BENCHES:
        raise unknown("benchmark", argv[0], BENCHES)
    run: Callable[[list[str]], None] = load(BENCHES[argv[0]])
    run(argv[1:])
