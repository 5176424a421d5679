"""How closely a student imitates its teacher (Stanton et al. 2021, arXiv:2106.05945, section 3).

Fidelity is not accuracy: a student may gain from a teacher whom it follows badly, so both are always reported.
"""

from __future__ import annotations

from torch import Tensor


def agreement(student_prediction: Tensor, teacher_prediction: Tensor) -> Tensor:
    """Whether both models predict the same class: class numbers of shape (N,) in, booleans of shape (N,) out."""
    return student_prediction == teacher_prediction


def kl_to_teacher(student_log_probs: Tensor, teacher_log_probs: Tensor) -> Tensor:
    """``KL(teacher || student)`` in nats for each sample: log-probabilities of shape (N, C) in, shape (N,) out.

    A class to which the teacher gives probability 0 adds 0, also where its log-probability is -inf.
    """
    probs = teacher_log_probs.exp()
    gap = teacher_log_probs.clamp_min(-1e30) - student_log_probs.clamp_min(-1e30)
    return (probs * gap).sum(-1)
