"""Datasets on disk: written as LeRobotDataset v3.0, read through a memory-mapped cache."""
