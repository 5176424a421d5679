"""Settings of runs from Python that take about a second."""

from __future__ import annotations

QUICK = {"pictures.every_n_epochs": 0, "trainer.accelerator": "cpu", "data.num_threads": 1}
