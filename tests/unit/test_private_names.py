"""Private names of libraries are used in one module per library, which says why."""

import ast
from collections.abc import Iterator
from pathlib import Path

import userapi

PACKAGE = Path(userapi.__file__).parent
# Documented by their libraries although they begin with an underscore.
PUBLIC = {"_asdict", "_get_current_object", "_mapping", "_srcfile"}
ALLOWED = {("api/blueprint.py", "_apidoc")}


def private_names(tree: ast.Module) -> Iterator[str]:
    """Return the private attributes that a module reads or sets and does not define itself."""
    own = {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef)
    }
    own |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and is_self(n.value)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not is_self(node.value) and node.attr not in own:
            yield node.attr
        elif isinstance(node, ast.ImportFrom) and not is_own_package(node):
            yield from (alias.name for alias in node.names)


def is_self(value: ast.expr) -> bool:
    return isinstance(value, ast.Name) and value.id in {"self", "cls"}


def is_own_package(node: ast.ImportFrom) -> bool:
    return bool(node.level) or (node.module or "").split(".")[0] in {"userapi", "__future__"}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def test_private_names_of_libraries_are_used_where_it_is_explained() -> None:
    used = {
        (path.relative_to(PACKAGE).as_posix(), name)
        for path in PACKAGE.rglob("*.py")
        for name in private_names(ast.parse(path.read_text("utf-8")))
        if is_private(name) and name not in PUBLIC
    }

    assert used <= ALLOWED
