"""Words of a command line that this start does not read are told."""

from __future__ import annotations

import pytest

from kd_lightning.cli._unread import unread

PRESETS = {"preset/authors": ["kd", "dkd"], "preset/none": []}


@pytest.mark.parametrize(
    ("words", "multirun", "says"),
    [
        ("run_dir=a seed=0,1", True, ["run_dir is of a single run: a sweep's directory is sweep_dir=DIR"]),
        ("sweep_dir=a", False, ["sweep_dir is of a sweep (-m): a single run's directory is run_dir=DIR"]),
        (
            "preset=authors method=dkd,ab",
            True,
            ["preset=authors has nothing for method=ab: its own weights and taps stay"],
        ),
        ("preset=authors method=dkd run_dir=a", False, []),
        ("preset=authors sweep_dir=a", True, []),
        ("preset=none method=ab", False, []),
    ],
)
def test_what_changes_nothing_is_named(words, multirun, says):
    assert unread(words.split(), multirun, lambda group: PRESETS.get(group, [])) == says
