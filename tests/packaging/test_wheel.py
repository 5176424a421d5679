"""The wheel holds everything: installed outside the checkout, ``kd-train`` trains from the configs within it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
QUICK = ["trainer.max_epochs=1", "teacher.train.max_epochs=1", "trainer.accelerator=cpu"]

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path) -> str:
    """A command's output, from a directory without our checkout on any path."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV", "HYDRA_FULL_ERROR")}
    environment["OMP_NUM_THREADS"] = "1"
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    pytest.importorskip("build", reason="pip install 'kd-lightning[dev]'")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    (made,) = out.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The scripts' directory of an environment in which only kd-lightning is installed.

    What it depends on is borrowed from this environment by a path alone, which leaves out our editable install.
    """
    folder = tmp_path_factory.mktemp("env")
    venv.create(folder, with_pip=False)
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    python = scripts / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel]
    run(*install, cwd=folder)
    (site / "borrowed.pth").write_text("\n".join(sorted(borrowed)) + "\n")
    return scripts


def test_every_config_and_asset_is_in_the_wheel(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(
        ["git", "ls-files", "conf", "kd_lightning", "hydra_plugins"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    wanted = {
        f"kd_lightning/{name}" if name.startswith("conf/") else name for name in tracked if (ROOT / name).exists()
    }
    assert {"kd_lightning/conf/train.yaml", "kd_lightning/py.typed"} <= wanted
    assert sorted(wanted - names) == []
    assert not [name for name in names if name.startswith(("tests/", "outputs/", "benchmarks/"))]


def test_its_parts_come_from_the_wheel(installed, tmp_path):
    code = (
        "import kd_lightning, hydra_plugins.kd_jobs.jobs_launcher as launcher\n"
        "from kd_lightning.cli._hydra_main import config_directory\n"
        "print(kd_lightning.__file__, launcher.__file__, config_directory(), sep='\\n')"
    )
    places = run(installed / "python", "-c", code, cwd=tmp_path).split()
    environment = installed.parent.resolve()
    assert len(places) == 3
    assert all(environment in Path(place).resolve().parents for place in places), places


def test_it_trains_in_an_empty_folder(installed, tmp_path):
    said = run(installed / "kd-train", *QUICK, "run_dir=run", cwd=tmp_path)
    for row in ("teacher", "student alone", "distilled student"):
        assert row in said
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["status"] == "finished"
    assert 0 <= result["metrics"]["test/acc"] <= 1
    assert "kd-evaluate" in said
    run(installed / "kd-evaluate", "run", cwd=tmp_path)


def test_a_student_of_the_zoo_comes_with_it(installed, tmp_path):
    Image.new("L", (28, 28)).save(tmp_path / "black.png")
    said = run(installed / "kd-predict", "zoo:fashion_mnist_cnn", "black.png", cwd=tmp_path)
    assert said.splitlines()[1].startswith("black.png,")


def test_a_sweep_finds_its_launcher(installed, tmp_path):
    run(installed / "kd-train", "-m", "seed=0,1", "baseline=false", *QUICK, "sweep_dir=sweep", cwd=tmp_path)
    assert {p.parent.name for p in (tmp_path / "sweep").glob("*/result.json")} == {"s0", "s1"}


def test_the_scripts_that_are_declared_all_answer(installed, tmp_path):
    for script in sorted(installed.glob("kd-*")):
        assert run(script, "--help", cwd=tmp_path)
    assert {"kd-train", "kd-evaluate"} <= {script.stem for script in installed.glob("kd-*")}
