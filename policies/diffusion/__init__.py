"""Diffusion and flow policies: one noise level per token throughout, so that every family member is a configuration."""
