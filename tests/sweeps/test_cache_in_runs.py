"""What a run that reads stored teacher outputs says of it, and what happens when they are damaged."""

from __future__ import annotations

import json

import pytest
from processes import SMALL, results, run

pytestmark = pytest.mark.slow


def test_results_say_whether_stored_outputs_were_read_and_a_flipped_byte_stops_the_next_run(tmp_path):
    sweep = run(tmp_path, "-m", *SMALL, "method.temperature=1,4", "sweep_dir=sweep")
    assert sweep.code == 0, sweep.text
    (stored,) = (tmp_path / "outputs" / "cache").glob("*/view*.npy")
    told = {name: (result["teacher"] or {}).get("cache") for name, result in results(tmp_path / "sweep").items()}
    assert told["T01.0"] == told["T04.0"]
    assert told["T01.0"].startswith("reading 1 view of 1000 samples")
    assert str(stored.parent.name) in told["T01.0"]

    content = bytearray(stored.read_bytes())
    content[len(content) // 2] ^= 1
    stored.write_bytes(content)
    damaged = run(tmp_path, *SMALL, "seed=7", "run_dir=damaged")
    assert damaged.code == 2, damaged.text
    assert str(stored.relative_to(tmp_path)) in damaged.text.splitlines()[-1]
    assert not (tmp_path / "damaged" / "checkpoints" / "best.ckpt").exists()

    live = run(tmp_path, *SMALL, "seed=7", "run_dir=damaged", "teacher.cache=off")
    assert live.code == 0, live.text
    assert "cache" not in json.loads((tmp_path / "damaged" / "result.json").read_text())["teacher"]


def test_a_cache_that_cannot_be_written_is_told_in_the_result(tmp_path):
    (tmp_path / "nowhere").write_text("a file where the directory should be")
    ended = run(tmp_path, *SMALL, "baseline=false", "paths.cache_dir=nowhere", "run_dir=run")
    assert ended.code == 0, ended.text
    told = json.loads((tmp_path / "run" / "result.json").read_text())["teacher"]["cache"]
    assert told.startswith("not used, nowhere")
    assert "cannot be written" in told
