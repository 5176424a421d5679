"""The table of keys: it covers every key there is, each entry matters, and what it allows can be built."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kd_lightning.cli._hydra_main import config_directory
from kd_lightning.config.keys import ARGUMENTS, KEYS, children, decides, declared, find, is_seed
from kd_lightning.config.keys_page import groups, plain_keys, renewed
from kd_lightning.config.rules import Rule
from kd_lightning.runs.spec import shared_part

CONF = config_directory()


def keys_of(path: Path) -> Iterator[tuple[str, Any]]:
    """The dotted keys that a file sets."""
    text = path.read_text(encoding="utf-8")
    content = {k: v for k, v in (yaml.safe_load(text) or {}).items() if k != "defaults"}
    package = re.search(r"^#\s*@package\s+(\S+)", text, re.M)
    group = "" if path.parent == CONF else path.parent.relative_to(CONF).parts[0]
    where = group if package is None else package[1].replace("_global_", "")
    if path.parent.parent.parent == CONF and group == "preset":  # preset/NAME/METHOD.yaml
        where = "method"
    yield from walk(content, f"{where}." if where else "")


def walk(node: dict, prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        yield prefix + str(key), value
        if isinstance(value, dict):
            yield from walk(value, f"{prefix}{key}.")


WRITTEN = sorted({key for path in CONF.rglob("*.yaml") for key, _ in keys_of(path) if not key.startswith("hydra")})


def entry_above(key: str) -> str:
    """The key itself or the nearest one above it that has an entry."""
    while key and declared(key) is None:
        key = key.rpartition(".")[0]
    return key


@pytest.mark.parametrize("key", WRITTEN)
def test_every_key_of_every_file_is_in_the_table_or_an_argument_of_what_is(key):
    above = entry_above(key)
    if above == key:
        return
    if not above:
        assert any(known.startswith(f"{key}.") for known in KEYS), "a section of declared keys"
        return
    assert KEYS.get(above, declared(above)).rule.kind in ("target", "targets", "arguments", "overlay", "mapping")
    if declared(above).rule.kind == "mapping":
        assert key.removeprefix(f"{above}.").partition(".")[0] in children(f"{above}."), "no mapping takes any key"


@pytest.mark.parametrize("key", sorted(KEYS))
def test_every_entry_is_of_a_key_that_a_file_sets_or_of_a_group(key):
    """An entry for nothing would go unnoticed; some keys are added on the command line only."""
    is_group = (CONF / key).is_dir()
    added_by_hand = key.startswith("trainer.") or key == "optimizer.layers"
    of_inner_teacher = key.startswith("teacher.") and any(k.endswith(key.removeprefix("teacher")) for k in WRITTEN)
    assert is_group or key in WRITTEN or added_by_hand or of_inner_teacher


def config_with(key: str, value: Any) -> dict[str, Any]:
    *above, last = key.split(".")
    config: dict[str, Any] = {}
    node = config
    for part in above:
        node = node.setdefault(part, {})
    node[last] = value
    return config


@pytest.mark.parametrize("key", sorted(key for key in KEYS if KEYS[key].rule.kind != "choice"))
def test_runs_of_a_group_differ_in_their_own_keys_only(key):
    one, other = (shared_part(config_with(key, value)) for value in ("a", "b"))
    assert (one == other) is (key in OWN)


OWN = frozenset(
    [
        "seed",
        "student",
        "student.drop_path",
        "method",
        "optimizer",
        "scheduler",
        "compile",
        "failures.stop",
        "failures.retries",
        "dry_run",
        "baseline",
        "accept_code",
        "max_fused",
        "name",
        "run_dir",
        "sweep_dir",
        "launcher",
        "logger",
        "logger.tensorboard.flush_secs",
        "early_stopping.patience",
        "early_stopping.min_delta",
        "scheduler.interval",
        "optimizer.layers",
        "optimizer.layer_decay",
        "optimizer.decay_vectors",
        "init_from",
        "continue_from",
        "pictures.every_n_epochs",
        "pictures.samples",
        "report.cards",
        "note",
        "paths",
        "paths.output_dir",
        "paths.data_dir",
        "paths.teacher_dir",
    ]
)
"""Written out, not derived: a group's first configuration stands for all of them in every other key."""

NOT_DECIDING = frozenset(
    [
        "failures.stop",
        "failures.retries",
        "dry_run",
        "baseline",
        "accept_code",
        "continue_from",
        "cuda_graphs",
        "max_fused",
        "launcher",
        "checkpoint.every_n_steps",
        "teacher.cache",
        "teacher.cache_limit_gb",
        "teacher.name",
        "data.device",
        "data.num_threads",
        "data.prefetch",
        "data.timeout",
        "data.reread",
        "data.eval_batch_size",
        "data.existing",
        "data.download",
        "data.cache_dir",
        "trainer.accelerator",
        "trainer.devices",
        "trainer.num_nodes",
        "trainer.strategy",
        "trainer.enable_progress_bar",
        "trainer.enable_model_summary",
        "trainer.enable_checkpointing",
        "trainer.num_sanity_val_steps",
        "trainer.profiler",
        "trainer.barebones",
        "name",
        "run_dir",
        "sweep_dir",
        "sweep",
        "hydra",
        "paths",
        "paths.output_dir",
        "paths.data_dir",
        "paths.teacher_dir",
        "paths.cache_dir",
        "logger",
        "logger.tensorboard.flush_secs",
        "pictures.every_n_epochs",
        "pictures.samples",
        "report.cards",
        "note",
        "doctor",
        "grad_norms_every_n_steps",
        "log_every_n_steps",
        "protocol",  # data.val_size=0 decides, without which it is refused
    ]
)
SEEDS = frozenset({"seed", "teacher.train.seed"})


@pytest.mark.parametrize("key", sorted(KEYS))
def test_what_decides_a_result_is_what_is_not_known_to_leave_it_alone(key):
    assert decides(key) is (key not in NOT_DECIDING)
    assert is_seed(key) is (key in SEEDS)


@pytest.mark.parametrize(
    ("key", "as_key"),
    [
        ("teacher.data.num_threads", "data.num_threads"),
        ("teacher.data.eval_batch_size", "data.eval_batch_size"),
        ("teacher.train.teacher.cache", "teacher.cache"),
        ("teacher.members.a.cache_limit_gb", "teacher.cache_limit_gb"),
        ("logger.wandb.project", "logger"),
        ("hydra/launcher", "hydra"),
        ("logger@x.y", "logger"),
        ("paths.elsewhere", "paths"),
    ],
)
def test_an_entry_holds_below_it_and_below_a_teacher(key, as_key):
    assert find(key).role == KEYS[as_key].role


@pytest.mark.parametrize("key", ["student.cache", "student.name", "data.train.root", "method.terms.kd.timeout", "x.y"])
def test_arguments_of_targets_decide(key):
    assert decides(key)
    assert not is_seed(key)


def test_where_published_data_lie_does_not_decide_and_where_ones_own_lie_does():
    assert decides("data.root", {"data.root"})
    assert not decides("data.root", {"data.root", "data.download"})
    assert not decides("teacher.data.root", {"teacher.data.download"})


@pytest.mark.parametrize("key", ["data.seed", "data.split_seed", "teacher.data.seed", "student.noise_seed"])
def test_a_seed_is_one_wherever_it_stands(key):
    assert is_seed(key)


@pytest.mark.parametrize("key", ["data.seeds", "student.speed", "logger.x.seed", "hydra.sweeper.sampler.seed"])
def test_what_only_looks_like_a_seed_is_none(key):
    assert not is_seed(key)


OUT_OF_RANGE = {
    "lr": -1.0, "max_lr": 0.0, "weight_decay": -0.1, "momentum": 1.0, "dropout": 1.0, "label_smoothing": 1.0,
    "pct_start": 1.1, "final_fraction": -0.1, "batch_size": 0, "temperature": 0.0, "seed": -1, "split_seed": -1,
    "val_size": -1, "train_size": 0, "labelled": -1, "views": -1, "max_epochs": 0, "max_steps": -2,
    "limit_train_batches": 0, "accumulate_grad_batches": 0, "gradient_clip_val": 0.0,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(ARGUMENTS))
def test_every_argument_of_the_table_has_a_value_that_cannot_be_meant(name):
    assert ARGUMENTS[name].rule.problem(OUT_OF_RANGE.get(name, -1)) is not None


def test_a_rule_says_in_words_what_it_allows():
    assert Rule("number", low=0, below=1).words() == "a number >= 0 < 1"
    assert Rule("integer", null=True, low=1).words() == "a whole number >= 1 or null"
    assert Rule("text", choices=("a", "b")).words() == "a, b"
    assert Rule("flag", choices=("a", "b")).words() == "true, false, a, b"


def test_no_two_names_of_the_table_are_one_key():
    assert len(KEYS) == len({key.lower() for key in KEYS})
    assert not [key for key, other in itertools.permutations(KEYS, 2) if key.startswith(f"{other}_.")]


def test_the_documentation_lists_the_table_as_it_is():
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == renewed(page), "run: python -m kd_lightning.config.keys_page docs/configuration.md"
    assert plain_keys() in page
    assert groups() in page
