"""docs/python.md runs as it is written, block by block in one session; only epochs are fewer."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.M | re.S)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::Warning:pytorch_lightning", "ignore::Warning:lightning_fabric")
def test_the_page_runs_from_its_first_block_to_its_last(folder, capsys):
    session: dict[str, object] = {"__name__": "session"}
    for block in BLOCKS:
        exec(compile(re.sub(r"max_epochs=\d+", "max_epochs=2", block), str(PAGE), "exec"), session)
    assert "distilled student" in capsys.readouterr().out
    assert session["result"].metrics["test/acc"] > 0.1
    assert session["found"].report.is_file()
    state = __import__("torch").load(next(Path("own").glob("*.ckpt")), weights_only=True)["state_dict"]
    assert {name.split(".")[0] for name in state} == {"members"}
    assert sum(value.numel() for name, value in state.items() if "student" in name) == 64 * 8 + 8 + 80 + 10


def test_the_page_names_every_argument():
    import inspect

    import kd_lightning as kd

    text = PAGE.read_text()
    named = set(inspect.signature(kd.distill).parameters) | set(inspect.signature(kd.sweep).parameters)
    assert sorted(name for name in named - {"baseline", "sweep_dir", "verbose"} if name not in text) == []


@pytest.mark.slow
@pytest.mark.parametrize("page", ["index.md", "sweeps.md"])
def test_what_the_tabs_for_python_say_runs(page, folder):
    import textwrap
    import types

    import kd_lightning as kd

    settings = {"teacher.train.max_epochs": 1, "pictures.every_n_epochs": 0}
    options = {"max_epochs": 1, "settings": settings, "verbose": False}
    quick = types.SimpleNamespace(
        distill=lambda **given: kd.distill(**options, **given), sweep=lambda **given: kd.sweep(**options, **given)
    )
    blocks = re.findall(r"^    ```python\n(.*?)^    ```$", (PAGE.parent / page).read_text(), re.M | re.S)
    assert blocks
    session: dict[str, object] = {"kd": quick}
    for block in blocks:
        exec(compile(textwrap.dedent(block).replace("import kd_lightning as kd\n", ""), page, "exec"), session)
    assert session["found"].report.is_file()
