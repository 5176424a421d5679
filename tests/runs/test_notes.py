"""A remark of a start is kept beside what was written by hand."""

from __future__ import annotations

from kd_lightning.runs.notes import keep_note


def test_each_remark_is_a_line_and_stands_there_once(tmp_path):
    (tmp_path / "notes.txt").write_text("by hand")
    for note in ("first #odd", "second", "first #odd"):
        keep_note(tmp_path, note)
    assert (tmp_path / "notes.txt").read_text() == "by hand\nfirst #odd\nsecond\n"
