"""The import order of docs/architecture.md, and what no module may do."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import conpet

ORDER = (
    "errors",
    "problem_details",
    "registry",
    "home",
    "files",
    "randomness",
    "resident",
    "config",
    "cost",
    "evaluation.metrics",
    "data",
    "evaluation.answers",
    "evaluation.significance",
    "evaluation.composite",
    "evaluation.cost_report",
    "evaluation.gate",
    "types",
    "data.prediction_files",
    "data.evaluation_files",
    "jobs.records",
    "watching.report",
    "client",
    "artifact",
    "store",
    "report",
    "watching",
    "review",
    "backbone",
    "features",
    "data.quality",
    "fusion",
    "refusal",
    "modules.adapter",
    "heads",
    "state.slots",
    "state.state",
    "state.statistics",
    "state.logistic",
    "state.inputs",
    "state.update",
    "replay",
    "context",
    "modules",
    "selectors",
    "methods.base",
    "state.module_assignment",
    "methods",
    "evaluation",
    "tuning",
    "state",
    "commands",
    "api",
    "comparison",
    "plugins",
    "",  # conpet/__init__.py, the public names
    "testing",
    "demo",
    "bench",
    "jobs",
    "serve",
    "dashboard",
    "serve.app",
    "serve.process",
    "serve.worker",
    "serve.supervisor",
    "serve.run",
    "cli",
    "__main__",
)
"""The order of need: a module may import what belongs to its own entry or to one before it.

A module belongs to the entry with the longest name it begins with: `conpet.state.state` to `state.state`,
`conpet.state.live` to `state`.
"""

# Whatever runs code that lies in the file it reads.
UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
UNSAFE_CALLS = {"torch.load", "torch.save", "numpy.load", "np.load", "numpy.save", "np.save"}
REGISTERED = re.compile(r"^(conpet(?:\.\w+)+):\w+$")
"""An entry of a `Registry`: as good as an import."""

IMPORTED_AS = {
    "yaml": "pyyaml",
    "prometheus_client": "prometheus-client",
    "pydantic_core": "pydantic",
    "python_multipart": "python-multipart",
    "backports": "backports.zstd",
    "mlflow": "mlflow-skinny",
}
STANDARD = sys.stdlib_module_names | {"compression"}
"""Modules of the standard library, also of Python 3.14."""
USED_BY_OTHERS = {"gguf", "scikit-learn", "httptools"}
"""Needed by transformers, which does not declare it; used by a script in `benchmarks`; used by uvicorn."""

SOURCE = Path(next(iter(conpet.__path__)))
FILES = {
    ".".join(["conpet", *path.relative_to(SOURCE).with_suffix("").parts]).removesuffix(".__init__"): path
    for path in sorted(SOURCE.rglob("*.py"))
}
MODULES = sorted(FILES)


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text(encoding="utf-8"))


@cache
def imported_names(module: str) -> frozenset[str]:
    """Return what a module imports at any depth, as absolute dotted names; paths in registries count."""
    nodes = list(run_nodes(tree(module)))
    registered = (REGISTERED.findall(str(node.value)) for node in nodes if isinstance(node, ast.Constant))
    return frozenset(names_of(module, nodes)).union(*registered)


def names_of(module: str, nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Yield what those nodes of a module import that are import statements."""
    package = module if FILES[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*up, *([node.module] if node.module else [])])
            yield from (f"{source}.{alias.name}" for alias in node.names)


def run_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes below a node, without blocks that only type checkers read."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield child
        yield from run_nodes(child)


@cache
def imported_modules(module: str) -> frozenset[str]:
    """Return the modules of conpet that a module imports.

    Of `config` only what it needs to be imported itself: settings look registries up by name when they are checked.
    """
    every = names_of(module, tree(module).body) if part(module) == "config" else imported_names(module)
    names = {name for name in every if name.partition(".")[0] == "conpet"}
    return frozenset(name if name in FILES else name.rpartition(".")[0] for name in names) - {module}


def part(module: str) -> str:
    return module.partition(".")[2].partition(".")[0]


def place(module: str) -> int:
    """Return the index of a module's entry in `ORDER`."""
    name = module.partition(".")[2]
    while name and name not in ORDER:
        name = name.rpartition(".")[0]
    return ORDER.index(name)


@cache
def calls(module: str) -> frozenset[str]:
    return frozenset(ast.unparse(node.func) for node in ast.walk(tree(module)) if isinstance(node, ast.Call))


def offences(of: Callable[[str], Iterable[str]], modules: Iterable[str] = MODULES) -> dict[str, list[str]]:
    """Return what a rule finds, by module, without the modules in which it finds nothing."""
    return {module: found for module in modules if (found := sorted(of(module)))}


def test_every_part_has_its_place() -> None:
    assert {part(module) for module in MODULES} <= set(ORDER)
    assert set(ORDER) <= {name.partition(".")[2] for name in MODULES}


def test_modules_import_only_what_comes_before_them() -> None:
    assert offences(lambda module: imported_modules(module) - set(FILES)) == {}
    assert offences(lambda module: {other for other in imported_modules(module) if place(other) > place(module)}) == {}


def test_test_labels_are_opened_only_to_measure_by_them_or_to_store_them_anew() -> None:
    opening = {module for module in MODULES if "conpet.replay.memory_writer.stored_examples" in imported_names(module)}
    allowed = ("base", "consolidate", "evaluate", "extend", "forget", "relabel", "restore", "rollback", "stored_rows")
    assert opening == {f"conpet.commands.{name}" for name in allowed}


def test_report_is_drawn_from_plain_values_alone() -> None:
    drawing = [module for module in MODULES if part(module) == "report" and module != "conpet.report.files"]
    assert {part(other) for module in drawing for other in imported_modules(module)} <= {"report", "errors", "files"}


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {module: imported_modules(module) for module in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_no_module_reads_files_that_can_carry_code() -> None:
    def unsafe(module: str) -> set[str]:
        imported = {name for name in imported_names(module) if name.partition(".")[0] in UNSAFE_MODULES}
        return imported | (imported_names(module) | calls(module)) & UNSAFE_CALLS

    assert offences(unsafe) == {}


def test_no_module_seeds_generators_of_its_callers() -> None:
    """`conpet.randomness` seeds those in use for a block; torch.manual_seed seeds those of all devices."""
    seeding = {"torch.manual_seed", "torch.seed", "torch.cuda.manual_seed", "torch.cuda.manual_seed_all", "random.seed"}
    assert offences(lambda module: calls(module) & {*seeding, "np.random.seed", "numpy.random.seed"}) == {}


def test_new_tensors_name_their_number_format() -> None:
    """Torch's default may change at any moment: transformers sets it while another thread loads a model."""
    makers = {f"torch.{name}" for name in ("full", "zeros", "ones", "empty", "eye", "linspace", "rand", "randn")}

    def unnamed(module: str) -> list[str]:
        made = [node for node in ast.walk(tree(module)) if isinstance(node, ast.Call)] if calls(module) & makers else []
        return [
            ast.unparse(node)
            for node in made
            if ast.unparse(node.func) in makers and "dtype" not in {word.arg for word in node.keywords}
        ]

    assert offences(unnamed, [module for module in MODULES if part(module) != "testing"]) == {}


def test_only_the_command_line_prints() -> None:
    printing = {"print", "pprint", "sys.stdout.write", "sys.stderr.write", "rich.print"}
    modules = [module for module in MODULES if part(module) != "cli"]
    assert offences(lambda module: (calls(module) | imported_names(module) & {"rich.print"}) & printing, modules) == {}


def test_dependencies_are_declared_used_and_explained() -> None:
    root = Path(__file__).parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    of_users = ("parquet", "excel", "zst", "tune", "bench", "serve", "client", "audit", "mlflow")
    requirements = [*project["dependencies"], *(requirement for extra in of_users for requirement in extras[extra])]
    declared = {re.split(r"[<>=!~ ]", requirement)[0] for requirement in requirements}
    names = {name.partition(".")[0] for module in MODULES for name in imported_names(module)}
    imported = {IMPORTED_AS.get(name, name) for name in names - STANDARD - {"conpet"}}
    assert declared - USED_BY_OTHERS == imported
    explained = re.findall(
        rf"^\| (?:(?:{'|'.join(of_users)}) \| )?([\w.-]+) \|",
        (root / "docs" / "dependencies.md").read_text(),
        re.MULTILINE,
    )
    assert declared <= set(explained)


def test_no_handler_takes_memory_that_ran_out_for_another_error() -> None:
    """Torch raises a `RuntimeError` for it: who catches one (or all) asks `check_memory`, or raises what was caught."""
    allowed = {
        "conpet.backbone.load.choose_device",  # reads a name
        "conpet.bench.runner._do",  # puts the whole error into its report
        "conpet.serve.background._work",  # whoever asks next gets the error
        "conpet.serve.logs.write",  # asks whether an event loop runs
    }
    swallowing = {
        f"{module}.{function.name}"
        for module in MODULES
        for function in ast.walk(tree(module))
        if isinstance(function, ast.FunctionDef)
        for handler in ast.walk(function)
        if isinstance(handler, ast.ExceptHandler) and caught(module, handler) & {"RuntimeError", "Exception"}
        if not {"check_memory", "is_out_of_memory"} & {ast.unparse(node) for node in ast.walk(handler)}
        if not any(isinstance(node, ast.Raise) and node.exc is None for node in ast.walk(handler))
    }
    assert swallowing <= allowed


def caught(module: str, handler: ast.ExceptHandler) -> set[str]:
    """Return the names of the errors that a handler catches; those of a tuple that the module defines, too."""
    if handler.type is None:
        return {"Exception"}
    tuples = {
        ast.unparse(node.targets[0]): node.value
        for node in tree(module).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple)
    }
    kinds = [handler.type, *(tuples[name] for name in names_in(handler.type) & tuples.keys())]
    return {name for kind in kinds for name in names_in(kind)}


def names_in(node: ast.AST) -> set[str]:
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
