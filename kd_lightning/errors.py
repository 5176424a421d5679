"""The error that is the user's to mend: printed as one line, without a traceback, exit code 2."""

from __future__ import annotations


class UserError(ValueError):
    """What a user gave is wrong. The text is one line: what was given, where (config key or file), what to do."""


class NoSuchLayer(UserError):
    """A model has no layer that a method taps; ``layer``: its name as the configuration has it."""

    def __init__(self, text: str, layer: str) -> None:
        super().__init__(text)
        self.layer = layer

    def __reduce__(self) -> tuple[type[NoSuchLayer], tuple[str, str]]:
        return type(self), (str(self), self.layer)


class DirectoryTaken(UserError):
    """A run's directory is another's: a process holds it, or it holds a run with another configuration."""


class RunInterrupted(Exception):
    """A signal asked the run to end; its checkpoints are written and it continues when started again."""


class RunsFailed(Exception):
    """Some runs of a sweep failed; the others are finished and their results written. Exit code 1, no traceback."""


class NothingRun(Exception):
    """A start that was only to say what it would do has said it. Exit code 0, and nothing is left of it."""


class Submitted(Exception):
    """Runs were handed to a cluster, which goes on without this process. Exit code 0."""
