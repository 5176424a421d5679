"""Numbers that change while a run goes on: loss weights and temperatures (of the clock), learning rates (torch's)."""

from kd_lightning.schedules.learning_rate import make_scheduler, warmup_cosine
from kd_lightning.schedules.values import Cosine, Hold, Piecewise, Ramp, Schedule

__all__ = ["Cosine", "Hold", "Piecewise", "Ramp", "Schedule", "make_scheduler", "warmup_cosine"]
