"""Checkpoints: whole or not there, plain or refused."""

from __future__ import annotations

import os
import random
import signal
import time
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from processes import PRELOAD
from torch import nn

from kd_lightning.errors import UserError
from kd_lightning.runs.checkpoint import load_checkpoint, load_weights, model_weights, save_checkpoint


def content(number: int) -> dict:
    return {"state_dict": {"a": torch.full((50_000,), float(number))}, "number": number}


def _write_for_ever(path: str) -> None:
    number = 0
    while True:
        save_checkpoint(Path(path), content(number))
        number += 1


def test_what_was_saved_is_loaded_and_named_with_its_format(tmp_path):
    save_checkpoint(tmp_path / "deep" / "last.ckpt", content(3))
    loaded = load_checkpoint(tmp_path / "deep" / "last.ckpt")
    assert loaded["number"] == 3
    assert loaded["format"] == 1
    assert torch.equal(loaded["state_dict"]["a"], torch.full((50_000,), 3.0))
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["last.ckpt"]


@pytest.mark.slow
def test_a_writer_killed_at_any_moment_leaves_a_whole_checkpoint(tmp_path):
    path, dice, seen = tmp_path / "last.ckpt", random.Random(1), set()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = get_context("forkserver")
    context.set_forkserver_preload(list(PRELOAD))
    save_checkpoint(path, content(-1))
    for _ in range(12):
        process, before = context.Process(target=_write_for_ever, args=(str(path),)), path.stat().st_mtime_ns
        process.start()
        until = time.monotonic() + 60
        while path.stat().st_mtime_ns == before and time.monotonic() < until:
            time.sleep(0.001)
        time.sleep(dice.uniform(0, 0.05))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        loaded = load_checkpoint(path)
        assert (loaded["state_dict"]["a"] == loaded["number"]).all()
        seen.add(loaded["number"])
    assert len(seen) > 1


class Payload:
    def __reduce__(self):
        return os.system, ("touch executed",)


def test_a_pickle_that_wants_to_run_code_is_refused_and_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Payload()}, "evil.ckpt")
    with pytest.raises(UserError, match=r"teacher\.checkpoint=evil\.ckpt: refused") as caught:
        load_checkpoint("evil.ckpt", "teacher.checkpoint")
    assert "\n" not in str(caught.value)
    assert not Path("executed").exists()


def test_any_damage_is_one_line_or_loads_and_never_another_exception(tmp_path):
    path, dice = tmp_path / "last.ckpt", random.Random(0)
    save_checkpoint(path, {"state_dict": nn.Linear(4, 3).state_dict(), "training": {"lr": [0.1], "rng": None}})
    whole, refused = path.read_bytes(), []
    damaged = [whole[:length] for length in range(0, len(whole), max(1, len(whole) // 60))]
    for _ in range(300):
        changed = bytearray(whole)
        for _ in range(dice.choice([1, 1, 3, 10])):
            changed[dice.randrange(len(changed))] = dice.randrange(256)
        damaged.append(bytes(changed))
    for data in damaged:
        path.write_bytes(data)
        try:
            load_checkpoint(path)
        except UserError as error:
            refused.append(str(error))
    assert len(refused) >= 60
    assert all(str(path) in text and "\n" not in text for text in refused)


def test_weights_are_found_in_our_checkpoints_lightnings_and_bare_state_dicts():
    model = nn.Linear(2, 2)
    state = model.state_dict()
    for stored in (
        state,
        {"state_dict": {f"student.{k}": v for k, v in state.items()} | {"method.adapter": torch.zeros(1)}},
        {"model": {f"module.{k}": v for k, v in state.items()}},
        {"state_dict": {f"model.{k}": v for k, v in state.items()}, "epoch": 3},
    ):
        assert set(model_weights(stored)) == {"weight", "bias"}


def test_another_architecture_is_named_with_the_first_difference():
    with pytest.raises(UserError, match=r"Linear .*weight has shape \(4, 2\), expected \(2, 2\).*2 of other shape"):
        load_weights(nn.Linear(2, 2), nn.Linear(2, 4).state_dict(), "here")
    with pytest.raises(UserError, match="bias is missing"):
        load_weights(nn.Linear(2, 2), {"weight": torch.zeros(2, 2)}, "here")
    with pytest.raises(UserError, match="extra is not in the model"):
        load_weights(nn.Linear(2, 2), {**nn.Linear(2, 2).state_dict(), "extra": torch.zeros(1)}, "here")


def test_weights_that_are_no_tensors_are_a_users_error():
    with pytest.raises(UserError, match="weight has shape"):
        load_weights(nn.Linear(2, 2), {"weight": 3, "bias": "x"}, "here")
