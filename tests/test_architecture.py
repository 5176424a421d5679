"""Who may import whom. The order of the rooms is written here, once.

Read from the source: what is imported at the top of a file or within its functions; imports under ``TYPE_CHECKING`` are
names for a reader and for the type checker, and bind nothing.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

ROOMS = (
    "kd_lightning",  # the public face: names only, loaded when asked for
    "private_interfaces",
    "errors",
    "keys",  # what the configuration's keys mean: a few files that need no others
    "batch",
    "outputs",
    "rng",
    "layout",
    "metrics",
    "joints",  # what the parts may know of each other
    "schedules",
    "calling",  # how a model is given inputs of any structure
    "taps",
    "losses",
    "optimizers",
    "models",
    "optimizers",
    "core",  # all files that have no room: Distiller, Member, Method, Recorder and their parts
    "tasks",
    "data",
    "runs",  # the files of a run
    "callbacks",
    "report",  # reads those files
    "terminal",
    "config",  # composes, builds
    "teachers",
    "check",  # config/check.py: asks all of these, at the start, before anything is made
    "running",  # how runs are executed
    "exporting",  # opens a finished run
    "sweeps",
    "cli",
    "api",  # the same from Python
    "hydra_plugins",
)
"""From the bottom to the top: a room imports from itself and from those before it."""

KEYS = {
    "kd_lightning.teachers.node",
    *(
        f"kd_lightning.config.{name}"
        for name in ("keys", "names", "processes", "replicates", "rules", "source", "suggestions")
    ),
}

CHECKED = ("distiller", "member", "method", "optimization", "recorder", "running", "sweeps", "callbacks")
"""Where objects come through a joint: it says what they have, so nobody has to ask."""
ASKED = {
    # optional members of a term, which joints.Term names
    "method": {"requires", "prepare", "bind", "after_step"},
    "member": {"_compiled_call_impl"},
    "distiller": {"to", "finish"},  # a teacher may be any callable
    "running": {
        "columns",
        "tap_arguments",
    },  # a DataFrame, which a user may hand to predict(); an optional member of a term
}
"""What is looked for by name all the same, by file or room: optional members that a joint names, and private interfaces."""


@cache
def modules() -> dict[str, Path]:
    files = [path for folder in ("kd_lightning", "hydra_plugins") for path in (ROOT / folder).rglob("*.py")]
    return {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p for p in files}


def room(module: str) -> str:
    if module in KEYS:
        return "keys"
    if module == "kd_lightning.config.check":
        return "check"
    first, *rest = module.split(".")
    if first == "hydra_plugins" or not rest:
        return first
    is_room = rest[0] in ROOMS or (ROOT / "kd_lightning" / rest[0]).is_dir()
    return rest[0] if is_room else "core"


class Imports(ast.NodeVisitor):
    """Modules of ours that a file imports."""

    def __init__(self) -> None:
        self.found: set[str] = set()

    def visit_If(self, node: ast.If) -> None:
        for child in node.orelse if "TYPE_CHECKING" in ast.unparse(node.test) else [*node.body, *node.orelse]:
            self.visit(child)

    def visit_Import(self, node: ast.Import) -> None:
        self.found |= {alias.name for alias in node.names}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        inner = {f"{node.module}.{alias.name}" for alias in node.names}
        self.found |= {name if name in modules() else str(node.module) for name in inner}


@cache
def imports() -> dict[str, set[str]]:
    found = {}
    for module, path in modules().items():
        visitor = Imports()
        visitor.visit(ast.parse(path.read_text()))
        found[module] = {name for name in visitor.found if name in modules() and name != module}
    return found


def test_every_room_has_its_place_in_the_order():
    assert {room(module) for module in modules()} <= set(ROOMS)


def test_no_import_runs_upward():
    place = {name: position for position, name in enumerate(ROOMS)}
    upward = [
        f"{module} imports {name}"
        for module, names in imports().items()
        for name in sorted(names)
        if place[room(name)] > place[room(module)]
    ]
    assert not upward, "\n".join(upward)


def test_no_file_comes_back_to_itself_through_its_imports():
    done: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            for name in sorted(imports()[module]):
                walk(name, (*path, module))
            done.add(module)

    for module in modules():
        walk(module, ())


def test_the_distiller_reaches_no_kind_of_task_no_kind_of_teacher_and_no_file():
    reached, left = set(), ["kd_lightning.distiller"]
    while left:
        module = left.pop()
        if module not in reached:
            reached.add(module)
            left += imports()[module]
    assert not {room(m) for m in reached} & {"tasks", "teachers", "runs", "report", "config", "data", "exporting"}


@pytest.mark.parametrize("place", CHECKED)
def test_what_comes_through_a_joint_is_not_asked_what_it_has(place):
    asked = {}
    for module, path in modules().items():
        if room(module) == place or module == f"kd_lightning.{place}":
            for node in ast.walk(ast.parse(path.read_text())):
                name = looked_for(node)
                if name is not None and name not in ASKED.get(place, set()) | {"_fields"}:  # a named tuple has those
                    asked[name] = f"{path.relative_to(ROOT)}:{node.lineno}"
    assert not asked, f"asked for by name instead of declared in kd_lightning/joints.py: {asked}"


def looked_for(node: ast.AST) -> str | None:
    """The literal name that a hasattr() or getattr() of a module asks for."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("hasattr", "getattr"):
        name = node.args[1]
        return name.value if isinstance(name, ast.Constant) else None
    return None
