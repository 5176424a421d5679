"""What Hydra and OmegaConf have to say about a configuration, in one line that says what to do.

Their messages are made for programmers and span up to ten lines; a user needs the file or override, the key, the
likeliest correction. Everything here works on strings and config sources: no torch, no user code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from hydra.core.config_loader import ConfigLoader
from hydra.core.object_type import ObjectType
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from kd_lightning.config.suggestions import closest, did_you_mean, same_word_elsewhere


def is_config_error(error: BaseException) -> bool:
    """True for what Hydra, OmegaConf and YAML raise about a configuration (and not about code)."""
    return isinstance(error, (HydraException, OmegaConfBaseException, YAMLError))


def explain(error: BaseException, known_keys: Iterable[str] = (), groups: Iterable[str] = ()) -> str:
    """Return one line about a composition error.

    Args:
        error: what composing raised.
        known_keys: dotted keys of the configuration without the offending overrides, for suggestions.
        groups: config groups, for suggestions.
    """
    text = str(error)
    if isinstance(error, MissingConfigException):
        return _missing_option(error)
    if isinstance(error, OverrideParseException):
        return f"command line: cannot read '{error.override}': {_grammar(text)}"
    if match := re.match(r"Could not override '([^']*)'", text):
        inside = re.search(rf"full_key: ({re.escape(match[1])}\.\S+)", str(error.__cause__))
        told = _unknown_key(inside[1] if inside else match[1], known_keys, groups)
        return _added_by_mapping(match[1], inside[1]) if inside and "did you mean" not in told else told
    if match := re.match(r"Ambiguous value for argument '([^']*)'", text):
        key, _, values = match[1].partition("=")
        return (
            f"command line: {match[1]}: several values: add -m for one run each, or write {key}=[{values}] for a list"
        )
    if match := re.match(r"Could not append to config. An item is already at '([^']*)'", text):
        return f"command line: +{match[1]}: this key exists already: leave out the +"
    if match := re.match(r"(\S+) appears more than once in the final defaults list", text):
        return f"command line: +{match[1]}: this group has a choice already: leave out the +, as in {match[1]}=NAME"
    if match := re.match(r"Could not delete from config. '([^']*)' does not exist", text):
        return f"command line: ~{match[1]}: no such key{did_you_mean(match[1], known_keys, show=0)}"
    if match := re.match(r"Error merging override (\S+)", text):
        return f"command line: {match[1]}: {one_line(str(error.__cause__ or error))}"
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{mark.name!s}, line {mark.line + 1}: not valid YAML: {error.problem}"
    if isinstance(error, OmegaConfBaseException):
        where = f"{error.full_key}: " if getattr(error, "full_key", None) else ""
        return f"configuration: {where}{one_line(text.splitlines()[0] if text else type(error).__name__)}"
    cause = f" ({one_line(str(error.__cause__))})" if error.__cause__ and str(error.__cause__) != text else ""
    return f"configuration: {one_line(text)}{cause}"


def one_line(text: str) -> str:
    """``text`` without its line breaks."""
    return re.sub(r"\s*\n\s*", "; ", text.strip())


def leaf_keys(cfg: DictConfig, prefix: str = "") -> list[str]:
    """Dotted keys of every node of ``cfg``; interpolations are left alone."""
    keys: list[str] = []
    for key in cfg:
        name = prefix + str(key)
        keys.append(name)
        if not OmegaConf.is_interpolation(cfg, str(key)) and not OmegaConf.is_missing(cfg, key):
            value = cfg[key]
            if isinstance(value, DictConfig):
                keys += leaf_keys(value, f"{name}.")
    return keys


def unknown_option(loader: ConfigLoader, overrides: Iterable[str]) -> str | None:
    """Find an option that does not exist of a group that is optional: Hydra would pass over it in silence.

    Returns:
        the error's line, or None.
    """
    for override in overrides:
        key, separator, value = override.lstrip("+").partition("=")
        group = key.partition("@")[0]
        if not separator or "." in group or not value:
            continue
        if group in loader.get_group_options(value.partition(",")[0], ObjectType.CONFIG):
            return f"command line: {group}={value}: the other way round: {value}={group}"
        options = loader.get_group_options(group, ObjectType.CONFIG)
        if not options:
            continue
        if value in ("null", "~"):
            return f"command line: {group}={value}: a group takes a name; there is {', '.join(sorted(options))}"
        for option in value.split(","):
            name = re.sub(r"\.ya?ml$", "", option.strip().strip("'\""))
            if re.fullmatch(r"[\w./-]+", name) and "/" not in name and name not in options:
                return f"command line: {group}={name}: no such option{_where_it_is(group, name, options)}"
    return None


def _missing_option(error: MissingConfigException) -> str:
    missing = str(error.missing_cfg_file or "")
    group, _, name = missing.rpartition("/")
    match = re.match(r"In '([^']*)': Could not (?:find|load) '", str(error))
    if not group:
        options = [o for o in (error.options or []) if o]
        return f"no configuration '{missing}'{did_you_mean(missing, options)}"
    options = [str(o) for o in error.options or []]
    if not options:
        return f"{group}={name}: no such config file, and no options in a group '{group}'"
    where = f" (asked for by conf/{match[1]}.yaml or the command line)" if match else ""
    return f"{group}={name}: no such option{_where_it_is(group, name, options)}{where}"


def _where_it_is(group: str, name: str, options: Iterable[str]) -> str:
    """What to do about an option that is not found: a file of the user's, or a similar name."""
    file = Path(group) / f"{name}.yaml"
    own = next(
        (folder for folder in (Path(), *sorted(filter(Path.is_dir, Path().glob("*")))) if (folder / file).is_file()),
        None,
    )
    if own is not None:
        return f"; {own / file} is there: add --config-dir {own}"
    return f"{did_you_mean(name, options, show=30)}; files of your own are found with --config-dir DIR"


def _added_by_mapping(key: str, inside: str) -> str:
    return (
        f"command line: {inside}: no such key: {key}={{…}} changes keys that are there; to put another mapping in the place of "
        f"this one write '~{key}' '+{key}={{…}}'"
    )


def _unknown_key(key: str, known_keys: Iterable[str], groups: Iterable[str]) -> str:
    group = key.partition("@")[0]
    groups = list(groups)
    if "." not in key and group not in groups and (near := closest(group, groups)) is not None:
        known_top = [k for k in known_keys if "." not in k]
        if closest(group, [*known_top, near]) == near:
            return f"command line: {key}: no such key or group; did you mean '{near}'?"
    if group in groups:
        return f"command line: {key}: this group has no choice to replace: write +{key}=NAME"
    ours = [k for k in known_keys if k.startswith("hydra.") == key.startswith("hydra.")]
    return f"command line: {key}: no such key{_instead(key, ours)}"


def _instead(key: str, known: list[str]) -> str:
    """What to write instead of a key that is not there."""
    if key in known:
        return ": another word of this command line took away what it belongs to"
    parent, _, leaf = key.rpartition(".")
    if parent == "data.augment" and not any(k.startswith("data.augment.") for k in known):
        return _not_augmented(leaf)
    beside = [k.rpartition(".")[2] for k in known if parent and k.rpartition(".")[0] == parent]
    if elsewhere := same_word_elsewhere(key, known):
        return elsewhere
    if not beside:
        return did_you_mean(key, known, show=0)
    if (near := closest(leaf, beside)) is not None:
        return f"; did you mean '{parent}.{near}'?"
    if "_target_" in beside:
        return f": its file does not name it; as an argument of {parent}._target_ it is written +{key}=…"
    of_method = ": the method has no such term" if parent == "method.weights" else ""
    return f"{of_method}; there is {', '.join(sorted(beside))}"


def _not_augmented(leaf: str) -> str:
    """Why data whose file has no mapping ``augment`` have none of its keys."""
    if leaf in ("mixup", "cutmix"):
        return (
            ": these data have no such augmentation: what is mixed are pictures with one class number each, not tables, texts "
            "or masks (docs/augmentation.md); leave it out"
        )
    return (
        ": these data have no such augmentation; pictures with masks are cropped and flipped by "
        "'data.augment={crop_padding: 4, flip: true}' (docs/augmentation.md), tables and texts by nothing"
    )


def _grammar(text: str) -> str:
    lines = [line for line in text.splitlines() if not line.startswith(("Error parsing override", "See https://"))]
    said = one_line(lines[0]) if lines else ""
    if "missing EQUAL" in said:
        return "write it as key=value"
    said = re.sub(r"expecting \{.*", "", said).strip()
    return f"{said}; write key=value, and quote a value with special characters: 'key=\"a=b\"'"
