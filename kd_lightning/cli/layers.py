"""``kd-layers student=… [teacher=…]``: the layers of both models, and which of them a method can compare."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from omegaconf import DictConfig

from kd_lightning.cli._hydra_main import run_hydra
from kd_lightning.cli._streams import steady

_NO_FILES = ("hydra.run.dir=.", "hydra.output_subdir=null")


@steady
def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; takes what ``kd-train`` takes, trains nothing and writes nothing. Returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return run_hydra(show_layers, "train", [*arguments, *_NO_FILES], check=check_job)


def check_job(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """The configuration has to be one that can be run."""
    from kd_lightning.config.check import check

    check(cfg, [override for override in overrides if override not in _NO_FILES])


def show_layers(cfg: DictConfig) -> None:
    """Print the table and the proposed taps."""
    from kd_lightning.terminal.quiet import quiet

    quiet()
    from kd_lightning.config.plain import plain_mapping
    from kd_lightning.running.layers import layers_lines, models_layers, taps_lines

    config = plain_mapping(cfg, resolve=True, throw_on_missing=True)
    student, teacher = models_layers(config)
    lines = taps_lines(student, teacher)
    if lines:
        lines = ["", "layers that go together, for methods that compare features (method=fitnet, …):", *lines]
    print("\n".join([*layers_lines(student, teacher), *lines]))


if __name__ == "__main__":
    raise SystemExit(main())
