"""``kd-report`` as a command."""

from __future__ import annotations

import subprocess
import sys

from kd_lightning.cli.report import main


def test_it_writes_the_page_and_says_what_was_found(sweep_dir, capsys):
    assert main([str(sweep_dir)]) == 0
    said = capsys.readouterr().out
    assert "36/39 runs finished" in said
    assert "against the student alone: better by " in said
    assert said.splitlines()[-1] == str(sweep_dir / "report.html")


def test_output_and_metric_are_the_users(sweep_dir, tmp_path):
    assert main([str(sweep_dir), "--output", str(tmp_path / "x" / "page.html"), "--metric", "test/agreement"]) == 0
    assert '"metric":"test/agreement"' in (tmp_path / "x" / "page.html").read_text(encoding="utf-8")


def test_a_wrong_directory_is_one_line_and_exit_code_2(tmp_path, capsys):
    assert main([str(tmp_path / "nowhere")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "nowhere" in said


def test_a_place_that_cannot_be_written_is_one_line_with_the_way_out(sweep_dir, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main([str(sweep_dir), "--output", str(tmp_path / "file" / "report.html")]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"kd-report: {tmp_path}/file/report.html: cannot be written (")
    assert said.endswith("): kd-report --output FILE writes it elsewhere\n")


def test_an_unknown_metric_names_the_known_ones(sweep_dir, capsys):
    assert main([str(sweep_dir), "--metric", "test/f1"]) == 2
    assert "choose from test/acc" in capsys.readouterr().err


def test_help_answers_without_heavy_imports():
    code = (
        "import sys, kd_lightning.cli.report as command\n"
        "try:\n    command.main(['--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'plotly', 'numpy', 'PIL', 'hydra'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
