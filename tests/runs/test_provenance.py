from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import pytest
import torch

from kd_lightning.runs import provenance


def git(directory, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", str(directory), *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "a.txt").write_text("one")
    git(tmp_path, "add", "a.txt")
    git(tmp_path, "commit", "-qm", "one")
    return tmp_path


def test_commit_tells_the_hash_and_whether_tracked_files_changed(repository):
    head = subprocess.check_output(["git", "-C", str(repository), "rev-parse", "HEAD"], text=True).strip()
    assert provenance.commit(repository) == {"hash": head, "dirty": False}
    (repository / "outputs.txt").write_text("untracked files do not change what ran")
    assert provenance.commit(repository)["dirty"] is False
    (repository / "a.txt").write_text("two")
    assert provenance.commit(repository) == {"hash": head, "dirty": True}


def test_commit_is_none_outside_a_repository_and_before_the_first_commit(tmp_path):
    assert provenance.commit(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert provenance.commit(tmp_path) is None


def test_commit_is_none_without_git(repository, monkeypatch):
    monkeypatch.setenv("PATH", os.devnull)
    assert provenance.commit(repository) is None


def test_commits_tell_the_users_repository_and_ours(repository, monkeypatch):
    monkeypatch.chdir(repository)
    found = provenance.commits()
    assert found["hash"] == provenance.commit(repository)["hash"]
    assert "kd_lightning" in found
    (repository / "a.txt").write_text("changed while a sweep runs: its code was loaded before")
    assert provenance.commits() == found


def test_versions_name_python_torch_and_this_package_and_are_json():
    found = provenance.versions()
    assert found["python"] == platform.python_version()
    assert found["torch"] == torch.__version__
    assert {"lightning", "hydra", "numpy", "torchvision", "kd_lightning"} <= found.keys()
    json.dumps(found)


def test_host_names_machine_and_cores():
    found = provenance.host()
    assert found["hostname"]
    assert found["cpu"]
    assert found["cores"] >= 1
    assert len(found["gpus"]) == torch.cuda.device_count()
    json.dumps(found)


def test_importing_provenance_does_not_import_torch():
    code = "import sys, kd_lightning.runs.provenance; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
