"""Residual reinforcement learning: stable-baselines3 PPO over a frozen base policy."""
