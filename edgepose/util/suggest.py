"""The "did you mean" of every error about a misspelled name."""

import difflib
from collections.abc import Iterable

_CUTOFF = 0.6


def closest(word: str, known: Iterable[str]) -> str | None:
    """Return the known name most like a word, whatever its case; None where none is like it."""
    by_fold = {name.casefold(): name for name in known}
    matches = difflib.get_close_matches(word.casefold(), by_fold, n=1, cutoff=_CUTOFF)
    return by_fold[matches[0]] if matches else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the end of a sentence, or nothing."""
    name = closest(word, known)
    return "" if name is None else f"; did you mean {name!r}?"
