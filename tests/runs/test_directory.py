"""A directory is one process's at a time, and a start that came to nothing leaves it as it was."""

from __future__ import annotations

import logging

import pytest

from kd_lightning.errors import DirectoryTaken, UserError
from kd_lightning.runs.directory import LogFiles, held


def content(folder) -> dict:
    return {path.relative_to(folder): path.is_file() and path.read_bytes() for path in folder.rglob("*")}


def test_a_second_holder_is_refused_and_can_hold_it_later(tmp_path):
    with held(tmp_path / "run"):
        (tmp_path / "run/result.json").write_text("{}")
        before = content(tmp_path)
        with pytest.raises(DirectoryTaken, match="another process is writing"), held(tmp_path / "run"):
            pass
        assert content(tmp_path) == before
    with held(tmp_path / "run"):
        pass


def test_a_directory_in_which_nothing_was_written_is_removed_with_the_parents_that_were_made_for_it(tmp_path):
    (tmp_path / "there").mkdir()
    with held(tmp_path / "there/a/b"):
        assert (tmp_path / "there/a/b").is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert not list((tmp_path / "there").iterdir())


def test_a_directory_that_was_there_is_left_as_it_was(tmp_path):
    (tmp_path / "file").write_text("mine")
    before = content(tmp_path)
    with pytest.raises(UserError), held(tmp_path):
        raise UserError("data.root: no such directory")
    assert content(tmp_path) == before


def test_what_was_written_stays(tmp_path):
    with held(tmp_path / "run"):
        (tmp_path / "run/last.ckpt").write_text("")
    assert (tmp_path / "run/last.ckpt").is_file()


def test_a_place_that_cannot_be_a_directory_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    says = r"sweep_dir=.*file/sweep: cannot be written \(Not a directory\)"
    with pytest.raises(UserError, match=says), held(tmp_path / "file/sweep", "sweep_dir"):
        pass


def test_messages_reach_the_log_file_once_it_is_opened_and_no_file_otherwise(tmp_path):
    log = logging.getLogger("kd_lightning.test")
    log.setLevel(logging.INFO)
    with LogFiles([tmp_path / "refused/run.log"]):
        log.info("never written")
    assert not list(tmp_path.iterdir())
    with LogFiles([tmp_path / "run/run.log"]) as files:
        log.info("before")
        files.open()
        log.info("after")
    log.info("too late")
    lines = (tmp_path / "run/run.log").read_text().splitlines()
    assert [line.rpartition(" ")[2] for line in lines] == ["before", "after"]
