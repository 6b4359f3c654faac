"""The error a user can mend: shown by the command line as one line, without a traceback, with exit code 2.

It stands in the lowest layer so that every other one can raise it. The message names what was wanted, what came and
what to do, e.g. ``raise UserError(f"out: wanted a folder, came the file {path}; choose another out=")``.
An error that is also a standard one inherits both: ``class AssetError(UserError, RuntimeError)``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input or a missing part that the person at the keyboard can put right."""


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Up to three of the ``known`` names that resemble ``name``, the best one first."""
    by_lower = {option.lower(): option for option in known}
    return [by_lower[match] for match in difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.6)]


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a ``name`` that is not among the ``known`` ones of its ``kind`` ("robot", "task", "key", ...)."""
    options = sorted(known)
    close = nearest(name, options)
    advice = f"did you mean {', '.join(close)}?" if close else f"choose one of: {', '.join(options) or '(none)'}"
    return UserError(f"unknown {kind} {name!r}; {advice}")
