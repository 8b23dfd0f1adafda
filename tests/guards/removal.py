"""Finds the code of a guard by name and syntax, and returns a module without it.

A guard names a symbol and the code inside it. Both are compared as syntax trees, so a guard still
matches after its function has moved to another module or the code has been formatted again.
"""

import ast
import copy
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PACKAGE = "userapi"


class GuardNotFound(Exception):
    """The code of a guard is not found exactly once."""


@dataclass(frozen=True, slots=True)
class Guard:
    """A rule, the code that enforces it, what replaces the code, and the tests that must fail.

    `symbol` is the end of a dotted name under `userapi`, long enough to be unique: a function, a
    method, a class or a variable. `present` is an expression, a keyword argument or consecutive
    statements inside it; with `in_string` it is text inside a string, as in a Lua script. An empty
    `without` deletes the code. For a file outside `userapi`, `symbol` is its path and `present` is
    text in it.
    """

    rule: str
    symbol: str
    present: str
    without: str
    tests: tuple[str, ...]
    in_string: bool = False


@dataclass(frozen=True, slots=True)
class _Symbol:
    file: Path
    node: ast.AST


@dataclass(frozen=True, slots=True)
class _Match:
    """Nodes that match, and the field of their parent that holds them."""

    nodes: Sequence[ast.AST]
    parent: ast.AST
    field: str


def file_without(guard: Guard, repository: Path) -> tuple[Path, str]:
    """Return the file of a guard, and its text without the guard's code. Raises GuardNotFound."""
    file = repository / guard.symbol
    if file.is_file():
        return file, _replace_text(guard, file.read_text("utf-8"))
    symbol = _find_symbol(guard.symbol, repository / PACKAGE)
    source = symbol.file.read_text("utf-8")
    if guard.in_string:
        return symbol.file, _replace_in_string(guard, symbol.node, source)
    pattern = ast.parse(textwrap.dedent(guard.present)).body
    matches = list(_matches(symbol.node, pattern))
    if len(matches) != 1:
        raise GuardNotFound(f"{guard.symbol} contains its code {len(matches)} times")
    return symbol.file, _replace(source, matches[0], textwrap.dedent(guard.without))


def _replace_text(guard: Guard, text: str) -> str:
    if text.count(guard.present) != 1:
        raise GuardNotFound(f"{guard.symbol} contains its text {text.count(guard.present)} times")
    return text.replace(guard.present, guard.without)


def _find_symbol(name: str, package: Path) -> _Symbol:
    found = [
        _Symbol(file, node)
        for file in sorted(package.rglob("*.py"))
        for qualified, node in _symbols(file, package, file.stat().st_mtime_ns)
        if f".{qualified}".endswith(f".{name}")
    ]
    if len(found) != 1:
        raise GuardNotFound(f"{len(found)} symbols are named {name}")
    return found[0]


@cache
def _symbols(file: Path, package: Path, _modified_ns: int) -> list[tuple[str, ast.AST]]:
    """Return the functions, classes and variables of a module with their dotted names."""
    module = ".".join(file.relative_to(package.parent).with_suffix("").parts)
    tree = ast.parse(file.read_text("utf-8"))
    return list(_named(tree, module.removesuffix(".__init__")))


def _named(scope: ast.AST, prefix: str, *, local: bool = False) -> Iterator[tuple[str, ast.AST]]:
    """Yield what a scope defines; of a function its functions, but none of its variables."""
    for node in ast.iter_child_nodes(scope):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            name = f"{prefix}.{node.name}"
            yield name, node
            yield from _named(node, name, local=not isinstance(node, ast.ClassDef))
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and not local:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                if isinstance(target, ast.Name):
                    yield f"{prefix}.{target.id}", node
        elif isinstance(node, (ast.If, ast.For, ast.While, ast.Try, ast.With)):
            yield from _named(node, prefix, local=local)


def _matches(scope: ast.AST, pattern: list[ast.stmt]) -> Iterator[_Match]:
    """Yield where the pattern occurs in a node, the node itself included."""
    wanted = [ast.dump(statement) for statement in pattern]
    alone = [ast.dump(node) for node in _also_written_as(pattern)]
    for parent in ast.walk(scope):
        for field, value in ast.iter_fields(parent):
            if isinstance(value, list):
                dumps = [ast.dump(item) for item in value if isinstance(item, ast.AST)]
                if len(dumps) != len(value):
                    continue  # Names of a global statement, or keys of a dict with `**`.
                for start, dump in enumerate(dumps):
                    if dumps[start : start + len(wanted)] == wanted:
                        yield _Match(value[start : start + len(wanted)], parent, field)
                    elif dump in alone:
                        yield _Match([value[start]], parent, field)
            elif isinstance(value, ast.AST) and ast.dump(value) in alone:
                if not isinstance(parent, ast.Expr):  # The statement itself has matched.
                    yield _Match([value], parent, field)
    if ast.dump(scope) in wanted and len(wanted) == 1:
        yield _Match([scope], scope, "")


def _also_written_as(pattern: list[ast.stmt]) -> list[ast.AST]:
    """Return what a single statement can be besides: an expression, or a keyword argument."""
    match pattern:
        case [ast.Expr(value=value)]:
            return [value]
        case [ast.Assign(targets=[ast.Name(id=name)], value=value)]:
            return [ast.keyword(name, value)]
    return []


def _replace(source: str, match: _Match, without: str) -> str:
    first, last = match.nodes[0], match.nodes[-1]
    if isinstance(first, ast.stmt):
        indent = " " * first.col_offset
        text = textwrap.indent(without.strip("\n") or "pass", indent).removeprefix(indent)
        return _patched(source, first, last, text)
    if without:
        # Parentheses keep the precedence; a keyword argument has its own syntax.
        text = without if isinstance(first, ast.keyword) else f"({without})"
        return _patched(source, first, last, text)
    parent, siblings = match.parent, getattr(match.parent, match.field, None)
    if not isinstance(parent, ast.expr) or not isinstance(siblings, list):
        raise GuardNotFound("an expression that is not in a list can only be replaced")
    remaining = [node for node in siblings if node is not first]
    shorter = copy.copy(parent)
    setattr(shorter, match.field, remaining)
    if isinstance(shorter, ast.BoolOp) and len(remaining) == 1:
        shorter = remaining[0]
    return _patched(source, parent, parent, f"({ast.unparse(shorter)})")


def _replace_in_string(guard: Guard, scope: ast.AST, source: str) -> str:
    holders = [
        node
        for node in ast.walk(scope)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and guard.present in node.value
    ]
    if len(holders) != 1:
        raise GuardNotFound(f"{len(holders)} strings of {guard.symbol} contain its text")
    changed = _replace_text(guard, str(holders[0].value))
    return _patched(source, holders[0], holders[0], repr(changed))


def _patched(source: str, first: ast.AST, last: ast.AST, text: str) -> str:
    """Return the source with the span of nodes replaced. Columns of `ast` count bytes."""
    lines = source.encode("utf-8").splitlines(keepends=True)
    start = sum(map(len, lines[: _position(first, "lineno") - 1])) + _position(first, "col_offset")
    end = sum(map(len, lines[: _position(last, "end_lineno") - 1])) + _position(
        last, "end_col_offset"
    )
    whole = b"".join(lines)
    return (whole[:start] + text.encode("utf-8") + whole[end:]).decode("utf-8")


def _position(node: ast.AST, name: str) -> int:
    return int(getattr(node, name))
