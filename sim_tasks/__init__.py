"""Omnibody."""
