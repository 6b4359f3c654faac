"""How a task says which figures a report's cell holds, and how its table shows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

Episodes = Mapping[str, np.ndarray]  # columns (n,): outcome (str), success, timeout (bool), seconds, and all measures

MEAN, ESTIMATE, SHARE, COUNT, NUMBER = "mean", "estimate", "share", "count", "number"


@dataclass(frozen=True)
class Figure:
    """A figure of n episodes: ``name`` in ``report.json``, its ``meaning`` in words, and what it is made of.

    ``of`` gives values (n,), NaN where an episode does not count, of which the ``kind`` makes one: the "mean"; an
    "estimate", the mean with its 95 % limits ``<name>_lo`` and ``<name>_hi``; the "share" of truth, with Wilson's
    limits; the "count" of truth. Of the kind "number", ``of`` gives the figure itself.
    """

    name: str
    meaning: str
    kind: str
    of: Callable[[Episodes], np.ndarray | float]


@dataclass(frozen=True)
class Column:
    """A column of the table: ``title``, a few ``words``, and figures as (name, factor, digits), small but the first."""

    title: str
    words: str
    figures: tuple[tuple[str, float, int], ...]


@dataclass(frozen=True)
class Figures:
    """All figures of a task, and its table's columns."""

    figures: tuple[Figure, ...]
    columns: tuple[Column, ...]
    start_states: str
