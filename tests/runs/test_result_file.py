from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from kd_lightning.errors import UserError
from kd_lightning.runs.atomic import write_atomically
from kd_lightning.runs.result_file import read_result, write_result

RESULT = {"status": "finished", "seed": 0, "metrics": {"best/val_acc": 0.93, "test/acc": 0.1 + 0.2}, "error": None}


def test_a_result_is_read_back_as_written_from_the_file_or_its_directory(tmp_path):
    write_result(tmp_path / "result.json", RESULT)
    assert read_result(tmp_path / "result.json") == {"format": 1, **RESULT}
    assert read_result(tmp_path) == {"format": 1, **RESULT}


def test_values_that_json_does_not_know_are_made_plain(tmp_path):
    odd = {
        "nan": math.nan,
        "numpy": np.float32(0.5),
        "tensor": torch.tensor(3),
        "array": np.array([1.0, math.inf]),
        "path": Path("a/b"),
        "tuple": (1, True),
        "set": {"b", "a"},
        5: "number as key",
    }
    write_result(tmp_path / "result.json", {"status": "failed", "config": odd})
    assert read_result(tmp_path)["config"] == {
        "nan": None,
        "numpy": 0.5,
        "tensor": 3,
        "array": [1.0, None],
        "path": "a/b",
        "tuple": [1, True],
        "set": ["a", "b"],
        "5": "number as key",
    }


def test_no_result_is_none(tmp_path):
    assert read_result(tmp_path / "result.json") is None


@pytest.mark.parametrize(
    "content", ["", '{"status": "fini', "[]", '{"format": 1}', '{"format": 9, "status": "failed"}', "\xff"]
)
def test_a_damaged_result_is_an_error_naming_the_file_or_none_if_not_strict(tmp_path, content):
    path = tmp_path / "result.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=r"result\.json is not a readable result .*delete it") as error:
        read_result(path)
    assert "\n" not in str(error.value)
    assert read_result(path, strict=False) is None


def test_an_unknown_status_is_refused(tmp_path):
    with pytest.raises(ValueError, match="status 'done'"):
        write_result(tmp_path / "result.json", {"status": "done"})
    assert not (tmp_path / "result.json").exists()


def test_a_failing_write_leaves_the_old_content_and_no_temporary_file(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    write_result(path, RESULT)

    def full_disk(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "half a resu")
    assert json.loads(path.read_text())["seed"] == 0
    assert os.listdir(tmp_path) == ["result.json"]


def test_a_written_file_has_the_permissions_that_the_umask_gives(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "a", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
