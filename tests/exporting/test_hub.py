"""``push=org/name``: the export's files and its card arrive at a hub, here one on the loopback address."""

from __future__ import annotations

import hub_server
import pytest
from processes import run

import kd_lightning as kd
from kd_lightning.errors import UserError

pytest.importorskip("huggingface_hub")


@pytest.fixture
def hub(monkeypatch):
    with hub_server.hub() as served:
        monkeypatch.setenv("HF_ENDPOINT", served.address)
        monkeypatch.setenv("HF_TOKEN", "hf_stand_in")
        yield served


def test_files_and_card_arrive_in_one_commit(cnn, hub):
    exported = kd.export(cnn, ["torch_export"], push="me/digits")
    there = hub.repos["me/digits"]
    assert set(there) == {"student.pt2", "preprocessing.json", "README.md", "export.json"}
    for name, content in there.items():
        assert content == (exported.directory / name).read_bytes()
    assert sum("/commit/" in line for line in hub.asked) == 1


def test_a_hub_that_refuses_is_one_line_and_the_files_stay(cnn, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "wrong")
    with pytest.raises(
        UserError, match=rf"push=me/digits: {hub.address} did not take it: .*; the files are in"
    ) as told:
        kd.export(cnn, ["torch_export"], push="me/digits")
    assert "\n" not in str(told.value)
    assert (cnn / "export" / "student.pt2").is_file()
    with pytest.raises(UserError, match="push=digits: give the repository as org/name"):
        kd.export(cnn, ["torch_export"], push="digits")


def test_the_command_says_where_it_went(cnn, hub):
    options = {"HF_ENDPOINT": hub.address, "HF_TOKEN": "hf_stand_in"}
    ended = run(cnn.parent, "run", "format=torch_export", "push=me/digits", program="export", **options)
    assert ended.code == 0, ended.text
    assert "pushed me/digits" in ended.text
    assert "README.md" in hub.repos["me/digits"]
