from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from cache_setup import make_teacher, opened
from filelock import FileLock

from kd_lightning.cli.cache import main


@pytest.fixture
def caches(tmp_path):
    """Two caches: of two teachers."""
    return [opened(tmp_path, make_teacher(seed)).store.directory for seed in (0, 1)]


def flip(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 64
    path.write_bytes(content)


def test_list_shows_size_use_and_the_whole_key(caches, capsys):
    assert main(["list", str(caches[0].parent)]) == 0
    text = capsys.readouterr().out
    for directory in caches:
        assert directory.name in text
    assert "4 views of 270 samples, logits fp16[6]" in text
    assert f"weights {make_teacher(1).fingerprint()[:16]}" in text
    assert "2 caches" in text


def test_list_of_one_cache_and_of_an_empty_directory(caches, tmp_path, capsys):
    assert main(["list", str(caches[0])]) == 0
    assert "1 caches" in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    assert main(["list", str(tmp_path / "empty")]) == 0
    assert "0 caches" in capsys.readouterr().out


def test_verify_finds_one_flipped_byte_and_says_where(caches, capsys):
    assert main(["verify", str(caches[0].parent)]) == 0
    flip(caches[1] / "view_00002.npy")
    assert main(["verify", str(caches[0].parent)]) == 1
    text = capsys.readouterr().out
    assert f"{caches[1] / 'view_00002.npy'}: altered or damaged" in text
    assert "2 caches, 1 damaged" in text


@pytest.mark.parametrize("name", ["meta.json", "view_00000.json"])
def test_verify_finds_a_damaged_description(caches, capsys, name):
    (caches[0] / name).write_text("{")
    assert main(["verify", str(caches[0].parent)]) == 1
    assert str(caches[0] / name) in capsys.readouterr().out


def test_prune_says_what_it_would_delete_and_deletes_with_yes_only(caches, capsys):
    flip(caches[1] / "view_00002.npy")
    root = str(caches[0].parent)
    assert main(["prune", root, "--corrupt"]) == 0
    assert f"would delete {caches[1].name}" in capsys.readouterr().out
    assert caches[1].exists()
    assert main(["prune", root, "--corrupt", "--yes"]) == 0
    assert f"deleted {caches[1].name}" in capsys.readouterr().out
    assert caches[0].exists()
    assert not caches[1].exists()
    opened(root, make_teacher(1))  # what a run does next: write it again


def test_prune_by_age_goes_by_the_last_use(caches):
    old = time.time() - 10 * 86400
    for directory in caches:
        for path in directory.iterdir():
            os.utime(path, (old, old))
    opened(caches[0].parent, make_teacher(0), mode="auto")  # reads the first: used now
    main(["prune", str(caches[0].parent), "--unused", "9", "--yes"])
    assert caches[0].exists()
    assert not caches[1].exists()


def test_prune_leaves_alone_what_is_being_written_and_what_is_no_cache(caches, tmp_path, capsys):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "result.json").write_text("{}")
    with FileLock(tmp_path / f"{caches[0].name}.lock"):
        main(["prune", str(tmp_path), "--all", "--yes"])
    assert f"kept {caches[0].name}" in capsys.readouterr().out
    assert caches[0].exists()
    assert not caches[1].exists()
    assert (tmp_path / "results" / "result.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"), [(["list", "/nowhere"], "not a directory"), (["prune", "."], "say which")]
)
def test_mistakes_are_one_line_and_exit_code_2(arguments, message, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_command_starts_without_torch(tmp_path):
    code = (
        "import sys; from kd_lightning.cli.cache import main; main(['list', sys.argv[1]]); "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "0 caches" in done.stdout


def test_a_cache_whose_description_is_gone_is_still_found(caches, capsys):
    (caches[0] / "meta.json").unlink()
    assert main(["verify", str(caches[0].parent)]) == 1
    main(["prune", str(caches[0].parent), "--corrupt", "--yes"])
    assert not caches[0].exists()
