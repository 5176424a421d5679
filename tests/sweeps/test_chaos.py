"""A sweep that is killed again and again ends where an undisturbed one ends, and does nothing twice that was done."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path

import pytest
from processes import SMALL, results, run, start, weights

SWEEP = (
    "-m",
    *SMALL,
    "method.temperature=1,2,4",
    "seed=0,1,2",  # nine runs, and three students alone
    "max_fused=3",
    "student.dropout=0.1",
    "data.augment=true",
    "data.views=2",
    "checkpoint.every_n_steps=7",
    "sweep_dir=sweep",
)
KILLS = 20


def finished(sweep: Path) -> dict[str, tuple]:
    """What must not change any more of each finished run: its checkpoint as a file, when and how long it trained."""
    kept = {}
    for path in sweep.glob("*/result.json"):
        result = json.loads(path.read_text())
        if result["status"] == "finished":
            checkpoint = (path.parent / "checkpoints" / "last.ckpt").stat()
            kept[path.parent.name] = (checkpoint.st_mtime_ns, checkpoint.st_ino, result["started"], result["cost"])
    return kept


class Changes:
    """Counts what happens to the files below a directory: the clock of a sweep, whatever the machine's speed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._seen = set(self._files())
        self._before = len(self._seen)

    def look(self) -> int:
        """Changes seen so far."""
        self._seen.update(self._files())
        return len(self._seen) - self._before

    def _files(self) -> list[tuple[str, int, int]]:
        found = []
        for parent, _, names in os.walk(self.directory):
            for name in names:
                try:
                    stat = os.stat(os.path.join(parent, name))
                except FileNotFoundError:  # a temporary file
                    continue
                found.append((os.path.join(parent, name), stat.st_mtime_ns, stat.st_size))
        return found


@pytest.mark.slow
def test_a_sweep_killed_at_twenty_random_moments_ends_as_an_undisturbed_one(tmp_path):
    (tmp_path / "killed").mkdir()
    undisturbed, changes = start(tmp_path / "undisturbed", *SWEEP), Changes(tmp_path / "undisturbed")
    undisturbed.wait_for(lambda: changes.look() and "12 runs in" in undisturbed.text)
    composing = changes.look()
    while undisturbed.running:
        changes.look()
        time.sleep(0.005)
    assert undisturbed.wait().code == 0, undisturbed.text
    working = changes.look() - composing

    dice, kills, moments = random.Random(0), 0, []
    there = tmp_path / "killed" / "sweep"
    done: dict[str, tuple] = {}
    for _ in range(3 * KILLS):
        changes, moment = (
            Changes(tmp_path / "killed"),
            dice.randint(1, 20 if len(done) == 12 else composing + working // 6),
        )
        command = start(tmp_path / "killed", *SWEEP)
        while command.running and changes.look() < moment:
            time.sleep(0.005)
        time.sleep(dice.uniform(0, 0.02))
        command.kill()
        code = command.wait().code
        assert code in (0, -9), command.text
        kills += code == -9
        now = finished(there)
        assert {name: now.get(name) for name in done} == done, "a finished run was touched"
        moments.append((code, moment, len(now)))
        done = now
        if kills == KILLS:
            break
    assert kills == KILLS, moments
    counts = {count for code, _, count in moments if code == -9}
    assert {0, 12} != counts >= {0}, f"no kill hit a sweep with some runs finished: {moments}"

    last = run(tmp_path / "killed", *SWEEP)
    assert last.code == 0, last.text
    assert {name: finished(there)[name] for name in done} == done

    expected, got = results(tmp_path / "undisturbed" / "sweep"), results(there)
    assert len(expected) == 12
    assert sorted(got) == sorted(expected)
    for name, result in expected.items():
        assert got[name]["status"] == "finished"
        assert got[name]["metrics"] == result["metrics"]
        assert (got[name]["baseline"] or {}).get("test/acc") == (result["baseline"] or {}).get("test/acc")
        assert got[name]["teacher"]["fingerprint"] == result["teacher"]["fingerprint"]
        assert weights(there / name) == weights(tmp_path / "undisturbed" / "sweep" / name)
        steps = [line["step"] for line in map(json.loads, (there / name / "metrics.jsonl").open()) if "val/acc" in line]
        assert steps == sorted(set(steps)), f"{name} has an epoch twice in metrics.jsonl"
        assert len(steps) == 3
    assert not list(there.rglob("*.tmp"))
    assert len(list((tmp_path / "killed" / "outputs" / "teachers").glob("*/result.json"))) == 1
    print("exit code, changes until the kill, runs finished so far:", moments)
