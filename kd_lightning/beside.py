"""Objects that a module works with and that are no part of it."""

from __future__ import annotations

from typing import Any


class Beside(tuple):
    """A tuple of objects that stay the same objects when the module that holds them is copied.

    A frozen teacher, open files and locks are nothing to copy: whoever copies a module (weight averaging does) copies what
    it learns. A tuple also hides modules from ``nn.Module``'s registration.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> Beside:
        return self
