"""Steps: simulator backends, cameras, and adapters to gymnasium and stable-baselines3."""

from omnibody.envs.make import make_env

__all__ = ["make_env"]
