"""What a teacher says to example samples: shapes, for terms that build what depends on them."""

from __future__ import annotations

from kd_lightning.batch import Batch, unnamed
from kd_lightning.joints import Teacher
from kd_lightning.outputs import ModelOutput
from kd_lightning.teachers.frozen import batch_device


def example_answer(teacher: Teacher, example: Batch) -> ModelOutput:
    """The live teacher's output for an example; of one that knows its training samples only, that for as many of these.

    The teacher is moved to the example: it may still be where it taught last.
    """
    teacher.to(batch_device(example.inputs))
    known = unnamed(example) if teacher.labels_new_inputs else example._replace(split="train", view=0)
    return teacher(known)
