"""kd-lightning from Python: ``kd.distill`` and ``kd.sweep``. Both start what ``kd-train`` starts, in this process."""
