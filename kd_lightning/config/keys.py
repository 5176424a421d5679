"""The one table of keys: what every key of a configuration may hold, and what it is for.

Everything that has to know a kind of key asks here: the check, the fingerprint, what runs of a group may differ in,
HParams, the report's factors, names of runs, statistics over seeds, docs/configuration.md.

Arguments of a ``_target_`` need no entry: names and types are those of the callable's signature, and they decide the
result. Those that do not (a loader's threads), or that are no arguments, have one. An entry holds for what is below it,
and for the same key below ``teacher``: ``teacher.data.num_threads`` is ``data.num_threads``.
"""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass
from functools import lru_cache

from kd_lightning.config.rules import Rule

RESULT, SEED, RUNNING, PLACE, SHOWN = "result", "seed", "running", "place", "shown"
"""What a key is for: it decides the result; it decides it as a seed does; how fast and beside whom a run runs; where
files are; what is shown or called how."""


@dataclass(frozen=True)
class Key:
    """One entry.

    Attributes:
        rule: what it may hold.
        meaning: a line of documentation; empty where the conf file's comment says it.
        role: :data:`RESULT`, :data:`SEED`, :data:`RUNNING`, :data:`PLACE` or :data:`SHOWN`.
        own: runs that are trained in lockstep may differ in it.
        group: a config group; the name of the chosen file names a run where the group decides the result.
        beside: stands beside the arguments of a ``_target_`` without being one.
        sizes: a model, whose sizes come from the data where they are ``auto`` or not given.
        of_start: of one start of the command, not kept in a run's configuration.
    """

    rule: Rule
    meaning: str = ""
    role: str = RESULT
    own: bool = False
    group: bool = False
    beside: bool = False
    sizes: bool = False
    of_start: bool = False

    @property
    def decides(self) -> bool:
        return self.role in (RESULT, SEED)


_COUNT = Rule("integer", low=1)
_SEED = Rule("integer", low=0)
_FLAG, _TEXT, _NUMBER = Rule("flag"), Rule("text"), Rule("number", low=0)
_TARGET, _TARGET_OR_NULL, _CHOICE = Rule("target"), Rule("target", null=True), Rule("choice")
_INTERVAL = Rule("text", choices=("step", "epoch"))
_COUNT_OR_NULL = Rule("integer", null=True, low=1)

KEYS: dict[str, Key] = {
    # what is computed
    "data": Key(_TARGET, "data set, splits, subset, missing labels, augmentation, batch size, loader", group=True),
    "task": Key(_TARGET, "the loss against the labels, the metrics", group=True),
    "teacher": Key(_TARGET, "the model, its recipe or checkpoint, how it runs, its cache", group=True),
    "student": Key(_TARGET, "the model that is trained", own=True, group=True, sizes=True),
    "student.drop_path": Key(
        Rule("number", null=True, low=0, below=1),
        "of `small_vit` and the ResNets: stochastic depth, the last block's probability of being left out; null: 0",
        own=True,
    ),
    "method": Key(_TARGET, "loss terms, their weights, temperature, taps", own=True, group=True),
    "optimizer": Key(_TARGET, "of the student", own=True, group=True),
    "scheduler": Key(
        _TARGET_OR_NULL,
        "of the student's learning rate; it spans the run, in epochs or steps; `plateau` follows the validation metric",
        own=True,
        group=True,
    ),
    "trainer": Key(Rule("arguments"), "arguments of Lightning's Trainer", group=True),
    "callbacks": Key(Rule("targets", null=True), "Lightning callbacks by name; such a run trains alone", group=True),
    "seed": Key(_SEED, "of the student: initial weights, dropout", SEED, own=True),
    "init_from": Key(
        Rule("text", null=True),
        "the student starts from these weights: a run's directory or a file; null: none",
        own=True,
    ),
    "continue_from": Key(
        Rule("text", null=True),
        "a finished run, or sweep, that differs in its length only: go on where it ended; null: from the start",
        RUNNING,
        own=True,
    ),
    "task.bce": Key(
        Rule("flag", null=True),
        "of a classification: binary cross-entropy, a yes or no for each class; null: cross-entropy",
    ),
    "optimizer.layers": Key(
        Rule("mapping"),
        "layers by name with settings of their own: `{stem: {frozen: true}, head: {lr: 0.01}}`",
        own=True,
        beside=True,
    ),
    "optimizer.layer_decay": Key(
        Rule("number", null=True, above=0, high=1),
        "each layer learns so many times as fast as the next one, the last at `lr`; null: all alike",
        own=True,
        beside=True,
    ),
    "optimizer.decay_vectors": Key(
        Rule("flag", null=True),
        "false: no weight decay for biases and norms; null: as for the rest",
        own=True,
        beside=True,
    ),
    "early_stopping.patience": Key(
        _COUNT_OR_NULL, "validations without an improvement until a run ends; null: never", own=True
    ),
    "early_stopping.min_delta": Key(_NUMBER, "what counts as an improvement must exceed this", own=True),
    "compile": Key(
        Rule("flag", choices=("reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")),
        "`torch.compile` the student; a text is its `mode`: `reduce-overhead` records CUDA graphs",
        own=True,
    ),
    "stacked": Key(
        Rule("flag", null=True),
        "an experiment: students of one architecture in lockstep are computed together, which rounds otherwise; null: in a loop, "
        "to the last bit as each alone",
    ),
    "cuda_graphs": Key(
        _FLAG,
        "an experiment: on a CUDA device the students' passes are recorded once and replayed, with the loop's results",
        RUNNING,
    ),
    "channels_last": Key(_FLAG, "memory format of the student's images and convolutions"),
    "scheduler.interval": Key(
        _INTERVAL, "the scheduler steps after every optimizer step or every epoch", own=True, beside=True
    ),
    "teacher.model": Key(_TARGET_OR_NULL, "its network; null: no teacher", sizes=True),
    "teacher.checkpoint": Key(
        Rule("text", null=True), "weights from a file or a run's directory instead of training; their content counts"
    ),
    "teacher.checkpoint_key": Key(Rule("text", null=True), "which weights of a file that holds several"),
    "teacher.train": Key(Rule("mapping", null=True), "its recipe; null: taken as it is"),
    "teacher.init": Key(
        Rule("text", null=True),
        "weights from a file or a run's directory from which its training starts; their content counts",
    ),
    "teacher.classes": Key(
        Rule("list", null=True), "which of its classes are the data's, in their order; null: its own"
    ),
    "teacher.outputs": Key(Rule("text", choices=("logits", "probabilities", "values")), "what its network returns"),
    "teacher.image_size": Key(_COUNT_OR_NULL, "pixels of a side of the images that it takes; null: the data's"),
    "teacher.train.max_epochs": Key(_COUNT, "epochs of its training"),
    "teacher.train.seed": Key(_SEED, "of the teacher: initial weights, dropout", SEED),
    "teacher.train.task": Key(_TARGET_OR_NULL, "what it is trained for, where that is not the student's task"),
    "teacher.train.optimizer": Key(_TARGET, "of the teacher"),
    "teacher.train.scheduler": Key(_TARGET_OR_NULL, "of the teacher's learning rate"),
    "teacher.train.scheduler_interval": Key(_INTERVAL, "as `scheduler.interval`"),
    "teacher.data": Key(Rule("overlay", null=True), "what differs in the data of the teacher's training"),
    "teacher.normalization": Key(Rule("mapping", null=True), "what its inputs were normalised with, if not the data's"),
    "teacher.normalization.mean": Key(Rule("list"), "per channel"),
    "teacher.normalization.std": Key(Rule("list"), "per channel"),
    "teacher.precision": Key(Rule("text", choices=("32", "bf16", "fp16")), "of the frozen teacher's forward pass"),
    "teacher.channels_last": Key(_FLAG, "memory format of the teacher's images and convolutions"),
    "teacher.compile": Key(_FLAG, "`torch.compile` the teacher"),
    "teacher.cache_precision": Key(
        Rule("text", choices=("fp16", "bf16", "fp32", "6bit", "scores")), "of stored teacher outputs", beside=True
    ),
    "teacher.cache_top_k": Key(_COUNT_OR_NULL, "keep only so many logits of each sample; null: all", beside=True),
    # how a run runs
    "baseline": Key(_FLAG, "train the student alone too, to compare with", RUNNING, own=True),
    "accept_code": Key(
        _FLAG, "keep what was made before the user's code was edited, as if it were of the code now", RUNNING, own=True
    ),
    "max_fused": Key(
        _COUNT_OR_NULL, "students in lockstep at once; null: as many as fit into memory", RUNNING, own=True
    ),
    "failures.stop": Key(_FLAG, "end a sweep at the first run that fails or diverges", RUNNING, own=True),
    "failures.retries": Key(Rule("integer", low=0), "start a failed run again so often", RUNNING, own=True),
    "dry_run": Key(
        _FLAG, "say what would run and about how long; nothing is written", RUNNING, own=True, of_start=True
    ),
    "checkpoint.every_n_steps": Key(_COUNT_OR_NULL, "keep the state within an epoch too; null: at its end", RUNNING),
    "teacher.cache": Key(_TEXT, "stored teacher outputs: auto, off, or a directory", RUNNING, beside=True),
    "teacher.cache_limit_gb": Key(
        Rule("number", null=True, above=0), "largest size of one cache", RUNNING, beside=True
    ),
    "data.device": Key(
        Rule("text", choices=("cpu", "auto")), "where data in memory lie; auto: on the GPU, if there is one", RUNNING
    ),
    "data.num_threads": Key(Rule("integer", null=True, low=0), "of the loader; null: chosen from the machine", RUNNING),
    "data.prefetch": Key(_COUNT_OR_NULL, "batches made ahead", RUNNING),
    "data.reread": Key(Rule("integer", low=0), "read every so-many-th sample twice and compare; 0: none", RUNNING),
    "data.timeout": Key(Rule("number", null=True, above=0), "seconds that a batch may take", RUNNING),
    "data.eval_batch_size": Key(_COUNT, "samples of a batch in validation and test", RUNNING),
    "trainer.accelerator": Key(_TEXT, "where it is computed", RUNNING),
    "trainer.devices": Key(Rule("text"), "how many processes of a run, or which devices they have", RUNNING),
    "trainer.num_nodes": Key(_COUNT, "machines that train one run together", RUNNING),
    "trainer.strategy": Key(
        Rule("text", null=True),
        "of several processes: ddp (auto), or fsdp, which divides the teacher's weights among them",
        RUNNING,
    ),
    "trainer.enable_progress_bar": Key(_FLAG, "Lightning's progress bar", SHOWN),
    "trainer.enable_model_summary": Key(_FLAG, "Lightning's list of layers", SHOWN),
    "trainer.enable_checkpointing": Key(_FLAG, "Lightning's own checkpoints, beside ours", SHOWN),
    "trainer.num_sanity_val_steps": Key(
        Rule("integer", null=True, low=-1), "batches of validation before training; -1: all", SHOWN
    ),
    "trainer.profiler": Key(_TEXT, "Lightning's profiler", SHOWN),
    "trainer.barebones": Key(_FLAG, "Lightning without extras", SHOWN),
    "launcher": Key(_TARGET, "how and where runs are computed", RUNNING, own=True, group=True, of_start=True),
    # where files are
    "name": Key(_TEXT, "`outputs/<name>/…`; by default the data's", PLACE, own=True),
    "run_dir": Key(
        _TEXT, "of a single run; one that exists is continued; `latest`: the newest", PLACE, own=True, of_start=True
    ),
    "sweep_dir": Key(
        Rule("text", null=True),
        "of `kd-train -m`; one that exists is continued; `latest`: the newest",
        PLACE,
        own=True,
        of_start=True,
    ),
    "paths": Key(Rule("mapping"), "where things are", PLACE, own=True, group=True),
    "paths.output_dir": Key(_TEXT, "runs, sweeps and trained teachers (or `KD_OUTPUT_DIR`)", PLACE, own=True),
    "paths.data_dir": Key(_TEXT, "data sets that are downloaded (or `KD_DATA_DIR`)", PLACE, own=True),
    "paths.teacher_dir": Key(_TEXT, "trained teachers, shared by all runs", PLACE, own=True),
    "paths.cache_dir": Key(_TEXT, "stored teacher outputs", PLACE),
    "data.existing": Key(Rule("list"), "other directories to look for published data in", PLACE),
    "data.download": Key(_FLAG, "fetch published data that is not found", PLACE),
    "data.cache_dir": Key(_TEXT, "where what was found out about the images is kept", PLACE),
    "protocol": Key(
        Rule("text", choices=("validation", "literature")),
        "`literature`: all training samples (`data.val_size=0`), the last epoch, best on test to compare with tables only",
        SHOWN,
        group=True,
    ),
    # what is shown
    "logger": Key(Rule("targets"), "beside TensorBoard and `metrics.jsonl`, which are always there", SHOWN, True, True),
    "logger.tensorboard.flush_secs": Key(
        Rule("number", above=0), "seconds until a scalar is on the disk at the latest", SHOWN, own=True
    ),
    "pictures.every_n_epochs": Key(Rule("integer", low=0), "student beside teacher; 0: none", SHOWN, own=True),
    "pictures.samples": Key(_COUNT, "samples in a picture", SHOWN, own=True),
    "report.cards": Key(
        Rule("targets", null=True),
        "cards of your own in the report: functions of a study, by name",
        SHOWN,
        own=True,
    ),
    "note": Key(
        Rule("text", null=True),
        "a remark on this start, `#word` for a tag: `notes.txt` of the run, or of the sweep",
        SHOWN,
        own=True,
        of_start=True,
    ),
    "doctor": Key(_FLAG, "look at the training and warn of what spoils it", SHOWN),
    "grad_norms_every_n_steps": Key(
        Rule("integer", low=0),
        "the doctor measures each term's gradient, `train/grad_…`, every so many steps; 0: never",
        SHOWN,
    ),
    "log_every_n_steps": Key(_COUNT, "losses are logged as means over so many steps", SHOWN),
    "teacher.name": Key(_TEXT, "what the teacher is called", SHOWN, beside=True),
    # groups that are no keys of a configuration
    "preset": Key(_CHOICE, "a method's weights and temperature for a kind of network", own=True, group=True),
    "experiment": Key(_CHOICE, "whole set-ups", group=True),
    "recipe": Key(_CHOICE, "published ways to train: method, augmentation, optimizer and length together", group=True),
    "debug": Key(_CHOICE, "`fast`, `overfit`, `default`: set-ups to find a mistake with", group=True),
    "sweep": Key(_CHOICE, "grids for `-m`", PLACE, own=True, group=True, of_start=True),
    "hydra": Key(_CHOICE, "Hydra's own settings", PLACE, own=True, group=True),
}
"""Keys by their dotted name. A key that is a prefix of others holds just those, unless its rule says otherwise."""

_SHARE, _BELOW_ONE, _POSITIVE = Rule("number", low=0, high=1), Rule("number", low=0, below=1), Rule("number", above=0)

ARGUMENTS: dict[str, Key] = {
    "temperature": Key(Rule("number", null=True, above=0)),
    "lr": Key(_POSITIVE),
    "max_lr": Key(_POSITIVE),
    "weight_decay": Key(_NUMBER),
    "momentum": Key(_BELOW_ONE),
    "dropout": Key(_BELOW_ONE),
    "label_smoothing": Key(_BELOW_ONE),
    "pct_start": Key(_SHARE),
    "final_fraction": Key(_SHARE),
    "batch_size": Key(_COUNT),
    "seed": Key(_SEED, role=SEED),
    "split_seed": Key(_SEED, role=SEED),
    "val_size": Key(_NUMBER),
    "train_size": Key(_COUNT_OR_NULL),
    "labelled": Key(Rule("integer", null=True, low=0)),
    "views": Key(Rule("integer", null=True, low=0)),
    "extra_views": Key(Rule("integer", low=0)),
    "repeats": Key(Rule("integer", null=True, low=1)),
    "randaugment": Key(Rule("integer", null=True, low=0)),
    "erasing": Key(Rule("number", null=True, low=0, high=1)),
    "mixup": Key(Rule("number", null=True, low=0)),
    "cutmix": Key(Rule("number", null=True, low=0)),
    "max_epochs": Key(_COUNT),
    "max_steps": Key(Rule("integer", low=-1)),
    "accumulate_grad_batches": Key(_COUNT),
    "gradient_clip_val": Key(Rule("number", null=True, above=0)),
    "max_grad_norm": Key(Rule("number", null=True, above=0)),
    "limit_train_batches": Key(Rule("amount", null=True, above=0)),
}
"""Arguments that mean the same wherever they stand, by the last component of the key."""

TRAINER_ELSEWHERE = {
    "logger": "the group logger (logger=NAME)",
    "callbacks": "the group callbacks (+callbacks.NAME=...)",
    "default_root_dir": "run_dir",
    "log_every_n_steps": "the top-level key log_every_n_steps",
    "overfit_batches": "data.train_size=NUMBER (debug=overfit does)",
}
"""Arguments of Lightning's Trainer that have their own place in our configuration."""

_ANY = Key(Rule("mapping"))
_INNER_TEACHER = re.compile(r"^teacher(\.train\.teacher|\.members\.[^.]+|\.encoder)+(?=\.|$)")


def outer_key(key: str) -> str:
    """The key that means the same of the outermost teacher: ``teacher.members.a.train.seed`` is ``teacher.train.seed``."""
    return _INNER_TEACHER.sub("teacher", key)


def declared(key: str) -> Key | None:
    """The entry of just this key, if it has one; that of ``data.x`` for ``teacher.data.x``, and so on.

    A teacher within a teacher (``teacher.members.a.name``, ``teacher.train.teacher.name``) has the outer one's keys.
    """
    key = outer_key(key)
    if key in KEYS:
        return KEYS[key]
    parts = key.split(".")
    if parts[0] == "teacher":
        return next((KEYS[tail] for i in range(1, len(parts) - 1) if (tail := ".".join(parts[i:])) in KEYS), None)
    return None


@lru_cache(maxsize=4096)
def find(key: str) -> Key:
    """What a key is for: its own entry, else that of the nearest key above it; arguments by their last component.

    Args:
        key: dotted; Hydra's ``group@package`` and ``group/subgroup`` are taken for their group.
    """
    key = key.partition("@")[0].partition("/")[0]
    entry = declared(key)
    if entry is not None:
        return entry
    above, last = key, key.rpartition(".")[2]
    while above and entry is None:
        above = above.rpartition(".")[0]
        entry = declared(above)
    entry = entry or _ANY
    if not entry.decides:
        return entry
    if last in ARGUMENTS:
        return Key(ARGUMENTS[last].rule, role=ARGUMENTS[last].role, own=entry.own)
    if last.endswith("_seed"):
        return Key(_ANY.rule, role=SEED, own=entry.own)
    return Key(_ANY.rule, own=entry.own)


def is_seed(key: str) -> bool:
    """Whether runs that differ in this key only are repetitions of one configuration."""
    return find(key).role == SEED


def decides(key: str, others: Container[str] = ()) -> bool:
    """Whether another value of the key makes another result.

    Args:
        key: dotted.
        others: the configuration's other keys, dotted: where published data lies does not decide what they are.
    """
    if key.rpartition(".")[2] == "root" and f"{key.rpartition('.')[0]}.download" in others:
        return False
    return find(key).decides


def children(prefix: str) -> set[str]:
    """Names that are declared directly below ``prefix`` (with its dot; "" for the top), arguments of targets not."""
    names = {key[len(prefix) :].partition(".")[0] for key, entry in KEYS.items() if key.startswith(prefix)}
    return {name for name in names if find(prefix + name).rule.kind != "choice"}
