"""Speed as ratios: to a limit measured in the same run, and to a peer doing the same work."""
