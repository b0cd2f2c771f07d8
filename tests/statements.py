"""Which SQL a package runs, told from its source: whether each statement is written down in it, and none is a value."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

EXECUTING = ("execute", "executemany", "executescript")

_SQL = re.compile(
    r"\s*(SELECT|INSERT INTO|UPDATE|DELETE FROM|PRAGMA|CREATE|DROP|ALTER|ATTACH|VACUUM|BEGIN|COMMIT|WITH)\b(\s+\S|\s*$)"
)

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


@dataclass
class Module:
    """A module of the package: its tree, and what each node stands in."""

    name: str
    tree: ast.Module
    parent_of: dict[ast.AST, ast.AST] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for node in ast.walk(self.tree):
            self.parent_of.update(dict.fromkeys(ast.iter_child_nodes(node), node))

    @cached_property
    def constants(self) -> dict[str, ast.expr]:
        """What is bound once in the module itself, and never again in whatever function."""
        bound: dict[str, list[ast.expr | None]] = {}
        for node in ast.walk(self.tree):
            if (
                isinstance(node, ast.Assign)
                and node in self.tree.body
                and all(isinstance(t, ast.Name) for t in node.targets)
            ):
                for target in node.targets:
                    bound.setdefault(target.id, []).append(node.value)  # type: ignore[attr-defined]
            elif isinstance(node, ast.AnnAssign) and node in self.tree.body and isinstance(node.target, ast.Name):
                bound.setdefault(node.target.id, []).append(node.value)
            elif isinstance(node, ast.Global):
                for name in node.names:
                    bound.setdefault(name, []).append(None)
        return {name: values[0] for name, values in bound.items() if len(values) == 1 and values[0] is not None}

    @cached_property
    def imported(self) -> dict[str, tuple[str, str | None]]:
        """What is imported, by the name that it has here: (module, name in it, None for the module itself)."""
        names: dict[str, tuple[str, str | None]] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                names.update({alias.asname or alias.name: (node.module, alias.name) for alias in node.names})
        return names

    def functions_around(self, node: ast.AST) -> Iterator[Function]:
        """The functions that a node stands in, inner ones first."""
        while node in self.parent_of:
            node = self.parent_of[node]
            if isinstance(node, Function):
                yield node

    def where(self, node: ast.AST) -> str:
        names = [f.name for f in self.functions_around(node) if not isinstance(f, ast.Lambda)]
        return ".".join([self.name, *reversed(names)])


class Statements:
    """The statements that the modules of a package run.

    A statement is written down where it is a literal; a constant of a module; such a one with its places filled in by
    `places(...)` or `int(...)`; a choice among these; or a parameter for which every caller in the package gives one of
    these. All else is a value.
    """

    def __init__(self, sources: dict[str, str]) -> None:
        self.modules = {name: Module(name, ast.parse(source)) for name, source in sources.items()}
        # Which functions take SQL: their names, and the places and names of the parameters.
        self.takes_sql: dict[str, set[tuple[int, str]]] = {name: {(0, "sql")} for name in EXECUTING}
        n_known = 0
        while n_known < (n_known := sum(map(len, self.takes_sql.values()))):
            self.values()

    def values(self) -> list[str]:
        """Where something is run that is not written down."""
        calls = list(self._calls())
        return sorted({module.where(call) for module, call, sql in calls if not self._is_written(module, sql)})

    def outside(self, *rooms: str) -> list[str]:
        """Where, outside some modules and packages, there is SQL or what runs it."""
        found = set()
        for module in self.modules.values():
            if not module.name.startswith(rooms):
                for node in ast.walk(module.tree):
                    if isinstance(node, ast.Constant) and isinstance(node.value, str) and _SQL.match(node.value):
                        found.add(module.name)
        return sorted(found)

    def _calls(self) -> Iterator[tuple[Module, ast.Call, ast.expr]]:
        """The calls that take SQL, each with the expression of it."""
        for module in self.modules.values():
            for node in ast.walk(module.tree):
                name = _called(node)
                if not isinstance(node, ast.Call) or name not in self.takes_sql:
                    continue
                for place, parameter in self.takes_sql[name]:
                    if len(node.args) > place:
                        yield module, node, node.args[place]
                    yield from ((module, node, keyword.value) for keyword in node.keywords if keyword.arg == parameter)

    def _is_written(self, module: Module, sql: ast.expr) -> bool:
        match sql:
            case ast.Constant(value=str() | int()):
                return True
            case ast.Name(id=name):
                return self._is_written_name(module, sql, name)
            case ast.Attribute(value=ast.Name(id=owner), attr=name):
                return self._is_constant_of(module, owner, name)
            case ast.JoinedStr(values=parts):
                return all(self._is_filling(module, p.value) for p in parts if isinstance(p, ast.FormattedValue))
            case ast.Call(func=ast.Attribute(value=template, attr="format"), args=[], keywords=keywords):
                return self._is_written(module, template) and all(
                    k.arg is not None and self._is_filling(module, k.value) for k in keywords
                )
            case ast.IfExp(body=one, orelse=other):
                return self._is_written(module, one) and self._is_written(module, other)
            case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.BoolOp(values=parts):
                return all(self._is_written(module, part) for part in parts)
            case ast.BinOp(left=left, right=right):
                return self._is_written(module, left) and self._is_written(module, right)
            case ast.Dict(values=parts):
                return all(self._is_written(module, part) for part in parts)
            case ast.DictComp(value=one) | ast.ListComp(elt=one):
                return self._is_written(module, one)
            case ast.Subscript(value=table):
                return self._is_written(module, table)
        return False

    def _is_filling(self, module: Module, value: ast.expr) -> bool:
        """Tell whether something may stand within a statement: question marks, a number, or a constant."""
        return _called(value) in ("places", "int") or self._is_written(module, value)

    def _is_written_name(self, module: Module, node: ast.AST, name: str) -> bool:
        bound = list(_bindings(module, node, name))
        for function in bound:
            if isinstance(function, ast.FunctionDef):  # a parameter: every caller answers for it
                names = [argument.arg for argument in function.args.args]
                place = names.index(name) - (names[0] == "self")
                self.takes_sql.setdefault(function.name, set()).add((place, name))
        if bound:
            return all(isinstance(it, ast.FunctionDef) or self._is_written(module, it) for it in bound)
        if name in module.constants:
            return self._is_written(module, module.constants[name])
        if name in module.imported:
            owner, original = module.imported[name]
            return original is not None and self._is_constant(owner, original)
        return False

    def _is_constant_of(self, module: Module, owner: str, name: str) -> bool:
        package, submodule = module.imported.get(owner, ("", None))
        return self._is_constant(f"{package}.{submodule}", name)

    def _is_constant(self, owner: str, name: str) -> bool:
        there = self.modules.get(owner)
        return there is not None and name in there.constants and self._is_written(there, there.constants[name])


def _called(node: ast.AST) -> str:
    match node:
        case ast.Call(func=ast.Name(id=name)) | ast.Call(func=ast.Attribute(attr=name)):
            return name
    return ""


def _bindings(module: Module, node: ast.AST, name: str) -> Iterator[ast.expr | ast.FunctionDef]:
    """What a name is bound to in the functions and comprehensions around a node; the function for its parameter."""
    inner = node
    while inner in module.parent_of:
        inner = module.parent_of[inner]
        for source in getattr(inner, "generators", []):
            if name in {part.id for part in ast.walk(source.target) if isinstance(part, ast.Name)}:
                yield source.iter
                return
        if isinstance(inner, ast.Lambda):
            continue
        if isinstance(inner, ast.FunctionDef):
            found = list(_bound_in(inner, name))
            if found:
                yield from found
                return


def _bound_in(function: ast.FunctionDef, name: str) -> Iterator[ast.expr | ast.FunctionDef]:
    if name in [argument.arg for argument in function.args.args]:
        yield function
    for node in ast.walk(function):
        targets: list[ast.expr] = []
        source: ast.expr | None = None
        if isinstance(node, ast.Assign):
            targets, source = node.targets, node.value
        elif isinstance(node, ast.AnnAssign | ast.AugAssign | ast.NamedExpr | ast.For):
            targets, source = [node.target], node.iter if isinstance(node, ast.For) else node.value
        for target in targets:
            if isinstance(target, ast.Name) and target.id == name:
                yield source or target
            elif source is not None and name in {part.id for part in ast.walk(target) if isinstance(part, ast.Name)}:
                yield source  # taken apart
