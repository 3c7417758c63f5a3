"""Mutations of Python source: single small changes, each of which a test of the module should catch."""
from __future__ import annotations

import ast
from typing import NamedTuple

OPERATORS: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitOr, ast.And: ast.Or, ast.Or: ast.And,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}
_PAIRS = [('min', 'max'), ('amin', 'amax'), ('argmin', 'argmax'), ('minimum', 'maximum'), ('clamp_min', 'clamp_max'),
          ('any', 'all'), ('floor', 'ceil'), ('zeros', 'ones'), ('float32', 'float64')]
NAMES = {**dict(_PAIRS), **{b: a for a, b in _PAIRS}}
METHODS = {**NAMES, 'float': 'double', 'double': 'float'}
_NEGATED_BY_OPERATOR = (ast.Eq, ast.NotEq, ast.Is, ast.IsNot, ast.In, ast.NotIn)


class Mutation(NamedTuple):
    """Replacement of a piece of a source."""

    scope: str   # qualified name of the function or class; empty at the top of the module
    line: int    # number of the first line that changes
    before: str  # the lines that change, as one
    after: str   # the same lines in the mutant
    start: int   # first byte of the piece
    end: int
    text: str    # its replacement

    def apply(self, source: str) -> str:
        """Return the mutated source."""
        data = source.encode()
        return (data[:self.start] + self.text.encode() + data[self.end:]).decode()


def find_mutations(source: str) -> list[Mutation]:
    """List all mutations of a source.

    Annotations, decorators, f-strings and the arguments of exceptions stay, since they hold types and messages.
    """
    finder = _Finder(source)
    finder.visit(ast.parse(source))
    return list(dict.fromkeys(finder.found))


class _Finder(ast.NodeVisitor):
    """Collector of the mutations of a syntax tree."""

    def __init__(self, source: str) -> None:
        self.source = source.encode()
        self.starts = [0]
        for line in self.source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.found: list[Mutation] = []
        self.scope: list[str] = []
        self.ends: set[ast.stmt] = set()  # last statements of functions

    def add(self, node: ast.AST, text: str, tail: int | None = None) -> None:
        """Record the replacement of a node, or of its last ``tail`` bytes, by a text."""
        end = self.starts[node.end_lineno - 1] + node.end_col_offset
        start = self.starts[node.lineno - 1] + node.col_offset if tail is None else end - tail
        first = max(line for line in self.starts if line <= start)
        last = min(line for line in self.starts if line >= end)
        head, piece, rest = (self.source[i:j].decode() for i, j in ((first, start), (start, end), (end, last)))
        before, after = (' '.join(lines.split()) for lines in (head + piece + rest, head + text + rest))
        self.found.append(Mutation('.'.join(self.scope), self.starts.index(first) + 1, before, after, start, end, text))

    def change(self, node: ast.AST, **fields) -> None:
        """Record a mutation that changes some fields of a node."""
        self.put(node, type(node)(**{**dict(ast.iter_fields(node)), **fields}))

    def put(self, node: ast.AST, other: ast.AST) -> None:
        """Record the replacement of a node by another."""
        text = ast.unparse(other)
        self.add(node, text if isinstance(other, (ast.stmt, ast.Name)) or _is_natural(other) else f'({text})')

    def remove(self, node: ast.stmt) -> None:
        self.add(node, 'pass')

    def negate(self, test: ast.expr) -> None:
        """Record the negation of a condition, unless a mutation of its operator is the same."""
        by_operator = isinstance(test, ast.Compare) and isinstance(test.ops[0], _NEGATED_BY_OPERATOR)
        if not (by_operator or (isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not))):
            self.put(test, ast.UnaryOp(ast.Not(), test))

    # Scopes and what has no mutations

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.scope.append(node.name)
        self.ends.add(node.body[-1])
        for child in [*node.args.defaults, *filter(None, node.args.kw_defaults), *node.body]:
            self.visit(child)
        self.scope.pop()

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.scope.append(node.name)
        for child in node.body:
            self.visit(child)
        self.scope.pop()

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Skip f-strings."""

    # Statements

    def visit_Raise(self, node: ast.Raise) -> None:
        self.remove(node)

    def visit_Return(self, node: ast.Return) -> None:
        if node not in self.ends:
            self.remove(node)
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):  # a docstring
            self.remove(node)
            self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        """Remove assignments to a part of an object and of new values to a name; a name without value is an error."""
        used = {name.id for name in ast.walk(node.value) if isinstance(name, ast.Name)}
        if any(not isinstance(target, (ast.Name, ast.Tuple)) or
               used & {name.id for name in ast.walk(target) if isinstance(name, ast.Name)} for target in node.targets):
            self.remove(node)
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.remove(node)
        if type(node.op) in OPERATORS:
            self.change(node, op=OPERATORS[type(node.op)]())
        self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) != 'TYPE_CHECKING':
            self.negate(node.test)
            self.generic_visit(node)

    visit_IfExp = visit_If

    def visit_While(self, node: ast.While) -> None:
        self.negate(node.test)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            self.negate(test)
        self.generic_visit(node)

    # Expressions

    def visit_Compare(self, node: ast.Compare) -> None:
        for i, operator in enumerate(node.ops):
            self.change(node, ops=[*node.ops[:i], OPERATORS[type(operator)](), *node.ops[i + 1:]])
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if type(node.op) in OPERATORS:
            self.change(node, op=OPERATORS[type(node.op)]())
        self.generic_visit(node)

    visit_BoolOp = visit_BinOp

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        self.put(node, node.operand)
        if isinstance(node.op, ast.USub) and _is_integer(node.operand):
            for value in (-node.operand.value + 1, -node.operand.value - 1):
                self.put(node, ast.Constant(value))
        else:
            self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self.change(node, value=not node.value)
        elif _is_integer(node):
            for value in (node.value + 1, node.value - 1):
                self.change(node, value=value)

    def visit_Name(self, node: ast.Name) -> None:
        if node.id in NAMES:
            self.add(node, NAMES[node.id])

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if node.attr in METHODS:
            self.add(node, METHODS[node.attr], tail=len(node.attr.encode()))
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        starred = any(isinstance(argument, ast.Starred) for argument in node.args)  # may stand after a keyword
        for keyword in node.keywords:
            if keyword.arg is not None and not starred:
                self.add(keyword, '**{}')
        self.generic_visit(node)


def _is_integer(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is int


def _is_natural(node: ast.AST) -> bool:
    return _is_integer(node) and node.value >= 0
