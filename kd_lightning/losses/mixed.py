"""Who is right for mixed samples (mixup, CutMix), whose target is one of two labels."""

from __future__ import annotations


def takes_mixed(part: object, beside: str = "forward") -> bool:
    """True for a term, or a task, that says ``takes_mixed = True``: its value is right where ``target`` is half of the truth.

    Who overrides ``beside``, a term's ``forward`` or a task's ``loss``, has to say it again: the new one may look at the target.
    """
    for kind in type(part).__mro__:
        if "takes_mixed" in vars(kind):
            return bool(getattr(part, "takes_mixed", False))
        if beside in vars(kind):
            return False
    return False
