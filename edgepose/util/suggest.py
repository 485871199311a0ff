"""Suggestions for misspelled names."""

import difflib
from collections.abc import Iterable


def closest(word: str, known: Iterable[str]) -> str | None:
    """Return the most similar known name, ignoring case; None if none is similar."""
    by_fold = {name.casefold(): name for name in known}
    matches = difflib.get_close_matches(word.casefold(), by_fold, n=1)
    return by_fold[matches[0]] if matches else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the end of a message, or an empty text."""
    name = closest(word, known)
    return "" if name is None else f"; did you mean {name!r}?"
