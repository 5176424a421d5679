"""How one figure is read: its direction, whether it is a share, what heads its column, whom it measures.

Light on purpose (no torch): the report and TensorBoard's tab read figures too.
"""

from __future__ import annotations

from typing import NamedTuple

STUDENT, TEACHER, FIDELITY = "student", "teacher", "fidelity"


class Metric(NamedTuple):
    """How one figure is read.

    Attributes:
        name: without prefix, as the evaluator returns it: "acc".
        higher_is_better: its direction; None where neither is.
        share: a fraction in [0, 1], shown in percent.
        title: as a column is headed; empty: the name.
        unit: of a value that is no share: "kWh".
        of: "student", "teacher" (measured of the teacher alone) or "fidelity" (of both).
        like: of a teacher's metric: the student's metric that it is to be compared with, under whose name it is kept
            among the teacher's figures.
        counted: the share of samples for which something holds, whose chance error for so many samples is known.
    """

    name: str
    higher_is_better: bool | None
    share: bool = False
    title: str = ""
    unit: str = ""
    of: str = STUDENT
    like: str = ""
    counted: bool = False

    @property
    def heading(self) -> str:
        """As a column is headed."""
        return self.title or self.name.replace("_", " ")

    @property
    def mode(self) -> str:
        """The direction as checkpoints and searches take it: "max" or "min" ("max" where neither is better)."""
        return "min" if self.higher_is_better is False else "max"

    @property
    def sign(self) -> int:
        """1 where higher is better or neither is, -1 where lower is: times a difference, it is positive for better."""
        return -1 if self.higher_is_better is False else 1
