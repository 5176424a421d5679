"""Checkpoints: whole or not there, plain or refused."""

from __future__ import annotations

import argparse
import functools
import os
import pickle
import random
import signal
import subprocess
import sys
import time
import types
import warnings
from collections.abc import Callable
from decimal import Decimal
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from processes import PRELOAD
from torch import nn

from kd_lightning.errors import UserError
from kd_lightning.runs.checkpoint import Unread, load_checkpoint, load_weights, model_weights, save_checkpoint


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


def test_our_checkpoints_give_the_students_weights_without_the_methods():
    state = {"student.weight": torch.ones(1), "student.bias": torch.ones(1), "method.adapter": torch.zeros(1)}
    assert set(model_weights({"state_dict": state})) == {"weight", "bias"}


def beside_weights(tmp_path: Path, beside: object) -> Path:
    torch.save({"model": {"weight": torch.ones(2)}, "beside": beside}, tmp_path / "foreign.pt")
    return tmp_path / "foreign.pt"


@pytest.mark.parametrize(
    "beside",
    [
        argparse.Namespace(lr=1),
        np.float64(75.0),
        Path("somewhere"),
        [Decimal("1.5")],
        types.SimpleNamespace(lr=1),
        functools.partial(torch.optim.SGD, lr=0.1),
        OmegaConf.create({"optimizer": {"lr": 0.1}}),
    ],
)
def test_objects_beside_the_tensors_are_left_unread_and_the_tensors_come(tmp_path, beside):
    content = load_checkpoint(beside_weights(tmp_path, beside))
    assert torch.equal(content["model"]["weight"], torch.ones(2))
    stands = content["beside"][0] if isinstance(beside, list) else content["beside"]
    assert isinstance(stands, Unread)
    assert type(beside[0] if isinstance(beside, list) else beside).__name__ in stands.name or "numpy" in stands.name


def test_an_older_file_with_objects_is_refused_by_their_name(tmp_path):
    content = {"model": {"weight": torch.ones(2)}, "args": argparse.Namespace(lr=1)}
    torch.save(content, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(
        UserError, match=r"refused: it holds an object of argparse\.Namespace; save the model's state_dict"
    ):
        load_checkpoint(tmp_path / "old.pt")


class Runs:
    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("function", [eval, os.system, subprocess.check_output, getattr, __import__])
def test_code_beside_the_tensors_is_refused_by_its_name(tmp_path, monkeypatch, function):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="refused, it wants to run code") as caught:
        load_checkpoint(beside_weights(tmp_path, Runs(function, "open('executed', 'w')")))
    assert function.__name__ in str(caught.value)
    assert not Path("executed").exists()


def test_a_plain_pickle_that_wants_to_run_code_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("plain.pt").write_bytes(pickle.dumps({"state_dict": Runs(os.system, "touch executed")}, protocol=4))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with pytest.raises(UserError, match="refused: it is no plain checkpoint of tensors"):
            load_checkpoint("plain.pt")
    assert warned == []  # torch's, of the pickle's protocol
    assert not Path("executed").exists()


def test_a_whole_module_is_told_from_its_weights(tmp_path):
    torch.save(nn.Sequential(nn.Linear(2, 2)), tmp_path / "module.pt")
    with pytest.raises(UserError, match=r"holds a whole torch\.nn\.modules\.container\.Sequential.*state_dict\(\)"):
        load_checkpoint(tmp_path / "module.pt")


def test_a_directory_is_told_with_the_checkpoint_that_it_has(tmp_path):
    save_checkpoint(tmp_path / "checkpoints" / "best.ckpt", content(1))
    with pytest.raises(UserError, match=r"is a directory, give .*best\.ckpt"):
        load_checkpoint(tmp_path)


def test_safetensors_are_read_by_their_package_and_without_it(tmp_path, monkeypatch):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"")
    package, module = types.ModuleType("safetensors"), types.ModuleType("safetensors.torch")
    module.load_file = lambda file, device: {"weight": torch.ones(1, device=device)} if file == path else None
    monkeypatch.setitem(sys.modules, "safetensors", package)
    monkeypatch.setitem(sys.modules, "safetensors.torch", module)
    assert torch.equal(load_checkpoint(path)["weight"], torch.ones(1))
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.delitem(sys.modules, "safetensors.torch")
    with pytest.raises(UserError, match="is no safetensors file, or is cut off"):
        load_checkpoint(path)
    header = b'{"weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\x00\x00\x80\x3f")
    assert torch.equal(load_checkpoint(path)["weight"], torch.ones(1))


def test_nothing_in_a_hostile_file_reaches_the_terminal_as_an_escape(tmp_path):
    red = "\x1b[31m\rhidden"
    torch.save([red], tmp_path / "list.pt")
    torch.save({f"{red}weight": torch.ones(2)}, tmp_path / "names.pt")
    for name in ("list.pt", "names.pt"):
        with pytest.raises(UserError) as caught:
            load_weights(nn.Linear(1, 2), load_checkpoint(tmp_path / name), "here")
        assert str(caught.value).isprintable()


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
