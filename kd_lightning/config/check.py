"""Is this configuration one that can be run? Asked before a directory is made or data is touched.

Every key is looked at: plain keys by :mod:`kd_lightning.config.keys`, arguments of a ``_target_`` by its signature.
The first thing that is wrong stops the command with one line: file or command line, the key, what is wrong, what was
probably meant.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, MissingMandatoryValue

from kd_lightning.config.annotations import misfit, parameters_of
from kd_lightning.config.explain import leaf_keys
from kd_lightning.config.keys import KEYS, TRAINER_ELSEWHERE, children, declared, find, outer_key
from kd_lightning.config.origin import Origin
from kd_lightning.config.processes import SHARDED, STRATEGIES, processes_of
from kd_lightning.config.protocol import check_protocol
from kd_lightning.config.rules import NUMERIC, Rule, kind_of, show
from kd_lightning.config.suggestions import did_you_mean, same_word_elsewhere
from kd_lightning.config.targets import TargetProblem, check_target, import_target
from kd_lightning.errors import UserError
from kd_lightning.runs.directory import checkpoint_in
from kd_lightning.teachers.node import DEFAULT_KIND

if TYPE_CHECKING:
    from kd_lightning.method import Method

_NEEDED = ("data", "task", "teacher", "student", "method", "optimizer", "trainer")


def check(cfg: DictConfig, overrides: Sequence[str] = ()) -> None:
    """Check a composed job configuration of ``kd-train``.

    Args:
        cfg: the configuration, without Hydra's own part; interpolations are resolved here, ``cfg`` stays as it is.
        overrides: the job's overrides, to say where a key comes from.

    Raises:
        UserError: for the first problem, in one line.
    """
    origin = Origin(overrides)
    terms = OmegaConf.to_yaml(OmegaConf.select(cfg, "method.terms") or {})
    _Checker(_resolved(cfg, origin), origin, terms).run()


def _resolved(cfg: DictConfig, origin: Origin) -> dict[str, Any]:
    try:
        plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        key = error.full_key or ""
        raise UserError(f"{origin.of(key)}: {key}: needs a value ('???' stands there)") from error
    except InterpolationResolutionError as error:
        key = next((k for k in leaf_keys(cfg) if not _resolves(cfg, k)), error.full_key or "")
        raise UserError(f"{origin.of(key)}: {key}: {str(error).splitlines()[0]}") from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _resolves(cfg: DictConfig, key: str) -> bool:
    try:
        OmegaConf.select(cfg, key)
    except InterpolationResolutionError:
        return False
    return True


class _Checker:
    def __init__(self, config: dict[str, Any], origin: Origin, terms: str) -> None:
        self.config, self.origin = config, origin
        self.terms = terms  # as they are written, interpolations and all

    def run(self) -> None:
        for key in (*_NEEDED, *sorted(children(""))):
            if key not in self.config or (self.config[key] is None and key in _NEEDED):
                self.fail(key, f"is missing{f': choose one with {key}=NAME' if find(key).group else ''}")
        self.plain("", self.config)
        self.method(self.config["method"])
        if self.config.get("cuda_graphs") and self.config.get("stacked"):
            self.fail("cuda_graphs", "a step that is stacked is not replayed too: leave out cuda_graphs or stacked")
        self.layers(self.config["optimizer"])
        check_protocol(self.config, self.fail)
        self.start_exists()
        self.teacher_suits_method()

    def fail(self, key: str, text: str) -> None:
        override = self.origin.override_of(key)
        plus = "+" if override is not None and override.startswith("+") else ""
        raise UserError(f"{self.origin.of(key)}: {plus}{key}: {text}")

    def plain(self, prefix: str, node: Mapping[str, Any]) -> None:
        """A mapping whose keys are declared."""
        names = children(prefix)
        for key, value in node.items():
            name = f"{prefix}{key}"
            entry = declared(name)
            kind = entry.rule.kind if entry is not None else "mapping"
            if entry is not None and value is None and entry.rule.null:
                continue
            if key not in names:
                self.fail(name, self.unknown(name, key, prefix, names))
            elif kind == "target":
                self.target(name, value)
            elif kind == "targets":
                self.targets_by_name(name, value)
            elif kind == "arguments":
                self.trainer(value)
            elif kind == "mapping":
                self.plain(f"{name}.", self.mapping(name, value))
            elif entry is not None:
                self.rule(name, value, entry.rule)

    def unknown(self, name: str, key: str, prefix: str, declared: set[str]) -> str:
        near = did_you_mean(key, declared, show=12 if prefix else 0)
        if not near and not prefix:  # the right key at the wrong place?
            near = same_word_elsewhere(key, _all_keys(self.config))
        return f"no such key{near.replace(repr(key), repr(name)) if not prefix else near}"

    def rule(self, name: str, value: Any, rule: Rule) -> None:
        problem = rule.problem(value)
        if problem is not None:
            self.fail(name, problem)

    def mapping(self, name: str, value: Any) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            hint = f": choose one with {name}=NAME" if name in _NEEDED else ""
            self.fail(name, f"must be a mapping, got {show(value)}{hint}")
        return value

    def target(self, name: str, value: Any) -> None:
        """A node with a ``_target_``, and those below it."""
        node = self.mapping(name, value)
        place = outer_key(name)
        if place == "teacher":
            node = {"_target_": DEFAULT_KIND, **node}
        if "_target_" not in node:
            near = did_you_mean(next((k for k in node if "target" in str(k)), ""), ["_target_"], show=0)
            self.fail(name, f"needs a _target_: the class or function to call{near}")
        beside = {key for key in node if (entry := declared(f"{name}.{key}")) is not None and entry.beside}
        for key in sorted(beside):
            self.rule(f"{name}.{key}", node[key], find(f"{name}.{key}").rule)
        try:
            from_data = find(name).sizes or name.startswith(("method.terms.", "teacher."))
            check_target(node, frozenset(beside), from_data=from_data)
            own_check = getattr(import_target(node["_target_"]), "check", None) if place == "teacher" else None
            if own_check is not None:
                own_check(node, self.config)
        except TargetProblem as problem:
            key, text = f"{name}.{problem.key}", problem.text
            self.fail(key, text + (self.left_over(key) if problem.untaken else ""))
        self.values(name, {key: value for key, value in node.items() if key not in beside})

    def left_over(self, key: str) -> str:
        """How to leave out a key that a file says of another choice than was made; a recipe is left out as a whole."""
        of_recipe = "/recipe/" in self.origin.of(key)
        return (
            "" if self.origin.override_of(key) is not None or of_recipe else f"; '~{key}' leaves out what the file says"
        )

    def values(self, name: str, value: Any) -> None:
        """Ranges of arguments, and targets within arguments."""
        items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
        for key, item in items:
            below = f"{name}.{key}"
            if isinstance(item, Mapping) and ("_target_" in item or outer_key(below) == "teacher"):
                self.target(below, item)
            elif isinstance(item, (Mapping, list)):
                self.values(below, item)
            elif isinstance(key, str) and item is not None and kind_of(item) in ("integer", "number"):
                rule = find(below).rule
                if rule.kind in NUMERIC:
                    self.rule(below, item, rule)

    def targets_by_name(self, name: str, value: Any) -> None:
        for key, node in self.mapping(name, value if value is not None else {}).items():
            if any(known.startswith(f"{name}.{key}.") for known in KEYS):  # options of what every run has
                self.plain(f"{name}.{key}.", self.mapping(f"{name}.{key}", node))
            elif node is not None:  # null arguments of a logger are filled in from the run: its directory, its name
                given = self.mapping(f"{name}.{key}", node).items()
                filled = {k: v for k, v in given if v is not None or name != "logger"}
                self.target(f"{name}.{key}", {**filled, "_partial_": True})

    def trainer(self, value: Any) -> None:
        """Arguments of Lightning's Trainer."""
        from pytorch_lightning import Trainer
        from pytorch_lightning.accelerators import AcceleratorRegistry

        from kd_lightning.member import AUTOCAST

        node = self.mapping("trainer", value)
        parameters, _ = parameters_of(Trainer) or ({}, True)
        for key, item in node.items():
            name = f"trainer.{key}"
            if key in TRAINER_ELSEWHERE:
                self.fail(name, f"use {TRAINER_ELSEWHERE[key]} instead")
            if key not in parameters:
                near = did_you_mean(key, parameters, show=0)
                self.fail(name, f"pytorch_lightning.Trainer has no such argument{near}")
            is_default = item is None and parameters[key].default is None
            problem = None if is_default else misfit(item, parameters[key].annotation)
            if problem is not None:
                self.fail(name, problem)
        accelerators = ("auto", "gpu", *AcceleratorRegistry.available_accelerators())
        if isinstance(node.get("accelerator"), str):
            self.rule("trainer.accelerator", node["accelerator"], Rule("text", choices=accelerators))
        if node.get("precision") is not None:
            self.rule("trainer.precision", node["precision"], Rule("text", choices=tuple(AUTOCAST)))
        devices = node.get("devices")
        if devices == 0 or (isinstance(devices, str) and not re.fullmatch(r"auto|-1|\d+(,\d+)*,?", devices)):
            self.fail("trainer.devices", f"must be a number, a list of device numbers or auto, got {show(devices)}")
        if str(devices) in ("auto", "-1"):
            self.fail(
                "trainer.devices", f"say how many, got {show(devices)}: the number of processes decides the result"
            )
        if node.get("strategy") in SHARDED:
            self.fail(
                "trainer.strategy",
                f"{show(node['strategy'])} divides a student that no device holds, and a student is small: take ddp, or fsdp for a large teacher",
            )
        elif isinstance(node.get("strategy"), str):
            self.rule("trainer.strategy", node["strategy"], Rule("text", choices=STRATEGIES))
            if node["strategy"] == "fsdp" and processes_of(node) == 1:
                self.fail(
                    "trainer.strategy", "fsdp divides the teacher among processes: set trainer.devices, or leave it out"
                )
        self.values("trainer", node)

    def method(self, node: Mapping[str, Any]) -> None:
        """Weights and terms belong together; weights are explicit."""
        from kd_lightning.config.build import without_auto
        from kd_lightning.method import Method

        weights, terms = node.get("weights"), node.get("terms") or {}
        if not isinstance(weights, Mapping) or not isinstance(terms, Mapping):
            return  # a method of another make: its own signature was checked
        for key, term in terms.items():
            if not isinstance(term, Mapping) or "_target_" not in term:
                self.fail(f"method.terms.{key}", "needs a _target_: the loss term's class")
        names = {"task", *terms}
        for key, weight in weights.items():
            name = f"method.weights.{key}"
            if key not in names:
                self.fail(name, f"the method has no such term{did_you_mean(str(key), names)}{self.left_over(name)}")
            if isinstance(weight, Mapping):
                self.made(name, weight)
            else:
                self.rule(name, weight, Rule("number", low=0))
        for key in sorted(names - set(weights)):
            self.fail(f"method.weights.{key}", "is missing: every term has its weight, and so has the task's own loss")
        if not any(weights.values()):
            self.fail("method.weights", "all weights are 0: the student would learn nothing")
        taps = node.get("taps") or {}
        for role in set(taps if isinstance(taps, Mapping) else {}) - {"student", "teacher"}:
            self.fail(f"method.taps.{role}", f"no such model{did_you_mean(role, ['student', 'teacher'])}")
        if isinstance(node.get("temperature"), Mapping):
            self.made("method.temperature", node["temperature"])

        method = self.made("method", without_auto(node))
        if isinstance(method, Method):
            self.takes_mixed(method)
            if (
                self.origin.override_of("method.temperature")
                and method.temperature
                and "temperature}" not in self.terms
            ):
                self.fail("method.temperature", "no term of this method reads it: leave it out")
        if isinstance(method, Method) and method.wants_views and not self.config["data"].get("extra_views"):
            asking = " and ".join(name for name, asked in method.asks.items() if "views" in asked)
            self.fail("method", f"{asking} compares views of a sample, the data give one: set data.extra_views=1")

    def takes_mixed(self, method: Method) -> None:
        """A method that looks at one label cannot learn from samples that the data mix."""
        from kd_lightning.data.augment_settings import mixing_of

        mixing = mixing_of(self.config["data"].get("augment") or False)
        if mixing is None:
            return
        try:
            method.refuse_mixed(mixing.keys)
        except UserError as error:
            raise UserError(f"{self.origin.of(mixing.keys.partition(' and ')[0])}: {error}") from error

    def made(self, name: str, node: Mapping[str, Any]) -> Any:
        """What a small node makes: methods and schedules check their own values."""
        from kd_lightning.config.build import instantiate
        from kd_lightning.rng import RngStream

        with RngStream(0):
            try:
                return instantiate(node, name)
            except UserError as error:
                if str(error).startswith(name):  # it names its own key
                    raise UserError(f"{self.origin.of(name)}: {error}") from error
                self.fail(name, str(error))

    def teacher_suits_method(self) -> None:
        """What the method reads of the teacher must be what it provides; its stored answers must do for the method."""
        from kd_lightning.teachers.suits import mismatch

        problem = mismatch(self.config["teacher"], self.config["method"], self.config["task"])
        if problem is not None:
            self.fail(*problem)

    def layers(self, optimizer: Mapping[str, Any]) -> None:
        """Settings of single layers: arguments of the optimizer, or ``frozen``."""
        known = parameters_of(import_target(optimizer["_target_"]))
        for layer, settings in (optimizer.get("layers") or {}).items():
            name = f"optimizer.layers.{layer}"
            for key, value in self.mapping(name, settings).items():
                if key != "frozen" and known is not None and not known[1] and key not in known[0]:
                    near = did_you_mean(str(key), [*known[0], "frozen"])
                    self.fail(f"{name}.{key}", f"{optimizer['_target_']} has no such argument{near}")
                self.rule(f"{name}.{key}", value, Rule("flag") if key == "frozen" else find(f"optimizer.{key}").rule)

    def start_exists(self) -> None:
        start = self.config.get("init_from")
        if start is not None and not checkpoint_in(start).is_file():
            self.fail("init_from", f"no checkpoint there: {checkpoint_in(start)}")
        earlier = self.config.get("continue_from")
        if earlier is not None and not Path(earlier).is_dir():
            self.fail("continue_from", f"no such directory: {earlier}: give a finished run's")


def _all_keys(node: Any, prefix: str = "") -> list[str]:
    if not isinstance(node, Mapping):
        return []
    return [key for k, v in node.items() for key in (f"{prefix}{k}", *_all_keys(v, f"{prefix}{k}."))]
