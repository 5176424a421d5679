"""What a command line gives that this start does not read: told in one line each, for nothing else would show it."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def unread(overrides: Sequence[str], multirun: bool, options: Callable[[str], Sequence[str]]) -> list[str]:
    """One line for each override that changes nothing.

    Args:
        overrides: of the command line.
        multirun: whether a sweep is started.
        options: the choices of a config group by its name.
    """
    given = {key: value for key, _, value in (override.partition("=") for override in overrides)}
    lines = []
    if multirun and "run_dir" in given:
        lines.append("run_dir is of a single run: a sweep's directory is sweep_dir=DIR")
    if not multirun and "sweep_dir" in given:
        lines.append("sweep_dir is of a sweep (-m): a single run's directory is run_dir=DIR")
    for preset in given.get("preset", "none").split(","):
        of_methods = set(options(f"preset/{preset}"))
        without = [m for m in given.get("method", "kd").split(",") if m.isidentifier() and m not in of_methods]
        if preset != "none" and of_methods and without:
            lines.append(f"preset={preset} has nothing for method={','.join(without)}: its own weights and taps stay")
    return lines
