"""``import kd_lightning as kd``: about ten names, which cost nothing until they are used."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

import kd_lightning as kd


def test_importing_it_loads_nothing_heavy_and_names_bring_what_they_need():
    code = (
        "import sys; before = set(sys.modules); import kd_lightning as kd; dir(kd)\n"
        "new = {name for name in set(sys.modules) - before if name.startswith('kd_lightning')}\n"
        "assert new == {'kd_lightning'}, new\n"
        "assert not {'torch', 'pytorch_lightning', 'hydra', 'omegaconf', 'numpy'} & set(sys.modules)\n"
        "assert kd.Batch.__module__ == 'kd_lightning.batch' and 'torch' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_there_and_listed():
    for name in kd.__all__:
        assert getattr(kd, name).__name__ == name if name != "__version__" else kd.__version__
    assert set(kd.__all__) <= set(dir(kd))
    assert len(kd.__all__) == 14


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'kd_lightning' has no attribute 'Destiller'"):
        _ = kd.Destiller


def test_the_version_is_said_in_one_place():
    assert version("kd-lightning") == kd.__version__
