"""The end of an error line: "did you mean …?"."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher, get_close_matches


def did_you_mean(word: str, known: Iterable[str], *, show: int = 12) -> str:
    """Return ``"; did you mean 'x'?"`` for the likeliest of ``known``, else the list of what there is, if it is short.

    Dotted names are compared whole and by their last component, so that ``method.temprature`` finds
    ``method.temperature`` and ``optim.lr`` finds ``optimizer.lr``.
    """
    known = sorted({str(k) for k in known})
    best = closest(word, known)
    if best is not None:
        return f"; did you mean '{best}'?"
    return f"; there is {', '.join(known)}" if 0 < len(known) <= show else ""


def closest(word: str, known: Iterable[str]) -> str | None:
    """Return the member of ``known`` that ``word`` is most likely a misspelling of, or None."""
    known, word = list(known), word.lower()
    lowered = {k.lower(): k for k in reversed(known)}
    parent, dot, leaf = word.rpartition(".")
    if dot:
        alike = {k: (_alike(k.rpartition(".")[2], leaf), _alike(k.rpartition(".")[0], parent)) for k in lowered}
        best = max((k for k in alike if "." in k and alike[k][0] >= 0.75), key=lambda k: sum(alike[k]), default=None)
        if best is not None:
            return lowered[best]
    if whole := get_close_matches(word, lowered, n=1, cutoff=0.8 if dot else 0.6):
        return lowered[whole[0]]
    starts = (
        k
        for k in lowered
        if min(len(word), len(k)) >= 3 and ("." in k) == bool(dot) and (k.startswith(word) or word.startswith(k))
    )
    return lowered.get(next(starts, ""))


_ELSEWHERE = {
    "learning_rate": "lr",
    "tau": "temperature",
    "t": "temperature",
    "epochs": "max_epochs",
    "num_epochs": "max_epochs",
    "bs": "batch_size",
    "num_workers": "num_threads",
    "dataset": "data",
    "model": "student",
    "alpha": "weights",
    "beta": "weights",
}
"""What other programs call what has another name here."""


def same_word_elsewhere(word: str, known: Iterable[str], *, show: int = 2) -> str:
    """Return ``"; did you mean 'optimizer.lr'?"`` where a word is the end of keys at other places; else "".

    Args:
        word: dotted; what other programs call it is known too (``learning_rate``).
        known: dotted keys.
        show: so many places at most, the outermost first, the student's before the teacher's.
    """
    parent, _, leaf = word.rpartition(".")
    name = _ELSEWHERE.get(leaf.lower(), leaf)
    places = {key for key in known if key.rpartition(".")[2] == name and not f"{word}.".startswith(f"{key}.")}
    within = [key for key in places if key.rpartition(".")[0] == parent]
    ends_alike = [key for key in places if key.endswith(f".{word}")]
    near = within or ends_alike or ([] if parent else [*places])
    ordered = sorted(near, key=lambda key: (key.startswith("teacher"), key.count("."), key))[:show]
    return f"; did you mean {' or '.join(repr(key) for key in ordered)}?" if ordered else ""


def _alike(a: str, b: str) -> float:
    return SequenceMatcher(None, a, b).ratio()
