"""Conditions of routes on decoded bodies: ``body.temperature > 80 and body.unit == "C"``.

The language is Python's for comparisons, ``and``, ``or``, ``not``, ``in`` and arithmetic on numbers, evaluated by
simpleeval: nothing can be called, and nothing but the message be named. What was left out on purpose is what strangers'
values could make expensive: there are no powers, no text is put together or formatted, and no attributes are looked up
in Python's objects, only names in the body's.

Theory of operation. A field that a body lacks, or that does not compare (text with a number), makes a comparison
neither true nor false, as NULL does in SQL: so ``not (body.t > 80)`` does not match a message without ``t``, while in
``a or b`` it is enough that one is true. A condition holds when it is true.

Work is bounded by the expression, `MAX_NODES`, whatever the body: lists are searched up to `MAX_SEARCHED`, and what is
in a list or object is not compared as a whole.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from simpleeval import InvalidExpression, SimpleEval

MAX_LENGTH = 1000
"""Characters."""
MAX_NODES = 100
"""Names, constants and operators of one expression, which take up to a microsecond each [measured]."""
MAX_SEARCHED = 1000
"""Elements of a list that ``in`` looks through."""
NAMES = ("body", "device", "topic", "layout")
_CONSTANTS = {"true": True, "false": False, "null": None}
LEGAL = (
    "comparisons of fields, such as body.temperature > 80 and body.unit == 'C', with and, or, not, in, + - * / // % "
    f"and brackets; the names {', '.join(NAMES)}; a field with an odd name is body['a b'], an element body.list[0]"
)


class _Unknown:
    """Neither true nor false; what there is nothing of."""

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "unknown"


UNKNOWN = _Unknown()


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)


def _arithmetic(work: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def operate(left: Any, right: Any) -> Any:
        if not (_is_number(left) and _is_number(right)):
            return UNKNOWN
        try:
            if isinstance(left, float) or isinstance(right, float):
                left, right = float(left), float(right)
            return work(left, right)
        except (ArithmeticError, ValueError):
            return UNKNOWN

    return operate


def _comparison(work: Callable[[Any, Any], bool], is_ordering: bool) -> Callable[[Any, Any], Any]:
    def compare(left: Any, right: Any) -> Any:
        if left is UNKNOWN or right is UNKNOWN or isinstance(left, (dict, list)) or isinstance(right, (dict, list)):
            return UNKNOWN
        if is_ordering and not (_is_number(left) and _is_number(right)) and type(left) is not type(right):
            return UNKNOWN
        try:
            return work(left, right)
        except (TypeError, InvalidOperation):
            return UNKNOWN

    return compare


def _contains(left: Any, right: Any) -> Any:
    if left is UNKNOWN or isinstance(left, (dict, list)):
        return UNKNOWN
    if isinstance(right, list):
        return left in right if len(right) <= MAX_SEARCHED else UNKNOWN
    if isinstance(right, (str, dict)) and isinstance(left, str):
        return left in right
    return UNKNOWN


def _lacks(left: Any, right: Any) -> Any:
    found = _contains(left, right)
    return found if found is UNKNOWN else not found


_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: _arithmetic(operator.add),
    ast.Sub: _arithmetic(operator.sub),
    ast.Mult: _arithmetic(operator.mul),
    ast.Div: _arithmetic(operator.truediv),
    ast.FloorDiv: _arithmetic(operator.floordiv),
    ast.Mod: _arithmetic(operator.mod),
    ast.Eq: _comparison(operator.eq, False),
    ast.NotEq: _comparison(operator.ne, False),
    ast.Lt: _comparison(operator.lt, True),
    ast.LtE: _comparison(operator.le, True),
    ast.Gt: _comparison(operator.gt, True),
    ast.GtE: _comparison(operator.ge, True),
    ast.In: _contains,
    ast.NotIn: _lacks,
    ast.Not: lambda value: UNKNOWN if value is UNKNOWN else not value,
    ast.USub: lambda value: -value if _is_number(value) else UNKNOWN,
    ast.UAdd: lambda value: value if _is_number(value) else UNKNOWN,
}
_NODES = (ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.BinOp, ast.UnaryOp, ast.Compare, ast.Name, ast.Load)
_MORE_NODES = (ast.Attribute, ast.Subscript, ast.Constant, ast.List, ast.Tuple)


class _Evaluator(SimpleEval):  # type: ignore[misc]
    """simpleeval, with our operators, and with names that are looked up in the message alone."""

    nodes: Any

    def __init__(self) -> None:
        super().__init__(operators=_OPERATORS, functions={}, names={})
        kept = {kind: self.nodes[kind] for kind in (ast.BinOp, ast.UnaryOp, ast.Constant)}
        own = {
            ast.Name: self._name,
            ast.Attribute: lambda node: _field(self._eval(node.value), node.attr),
            ast.Subscript: lambda node: _field(self._eval(node.value), self._eval(node.slice)),
            ast.BoolOp: self._bool_op,
            ast.Compare: self._compare,
            ast.List: self._list,
            ast.Tuple: self._list,
        }
        self.nodes = kept | own

    def _name(self, node: ast.Name) -> Any:
        return _CONSTANTS[node.id] if node.id in _CONSTANTS else self.names[node.id]

    def _bool_op(self, node: ast.BoolOp) -> Any:
        decisive = isinstance(node.op, ast.Or)
        found: Any = not decisive
        for value in node.values:
            one = self._eval(value)
            if one is UNKNOWN:
                found = UNKNOWN
            elif bool(one) is decisive:
                return decisive
        return found

    def _compare(self, node: ast.Compare) -> Any:
        left: Any = self._eval(node.left)
        found: Any = True
        for kind, comparator in zip(node.ops, node.comparators, strict=True):
            right = self._eval(comparator)
            one = self.operators[type(kind)](left, right)
            if one is UNKNOWN:
                found = one
            elif not one:
                return False
            left = right
        return found

    def _list(self, node: ast.List | ast.Tuple) -> list[Any]:
        return [self._eval(element) for element in node.elts]


def _field(value: Any, key: Any) -> Any:
    """What an object has under a name, or a list at a place; `UNKNOWN` where there is nothing."""
    if isinstance(value, dict):
        return value.get(key, UNKNOWN) if isinstance(key, str) else UNKNOWN
    if isinstance(value, list) and isinstance(key, int) and -len(value) <= key < len(value):
        return value[key]
    return UNKNOWN


class Condition:
    """One condition, compiled. Raises `ValueError` for what is none."""

    __slots__ = ("_evaluator", "_tree", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        if len(text) > MAX_LENGTH:
            raise ValueError(f"over {MAX_LENGTH} characters")
        try:
            tree = ast.parse(text.strip(), mode="eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise ValueError(f"no expression: {getattr(error, 'msg', type(error).__name__)}") from None
        nodes = list(ast.walk(tree))
        if sum(not isinstance(node, ast.Load) for node in nodes) > MAX_NODES:
            raise ValueError(f"over {MAX_NODES} names, constants and operators")
        for node in nodes:
            _check(node)
        self._tree = tree.body
        self._evaluator = _Evaluator()

    def holds(self, body: Any, device: str, topic: str, layout: Mapping[str, str] | None = None) -> bool:
        """Whether it is true of a message with this decoded body, and the layout's name and words if it has one."""
        words = {} if layout is None else dict(layout)
        self._evaluator.names = {"body": body, "device": device, "topic": topic, "layout": words}
        try:
            return bool(self._evaluator.eval(self.text, previously_parsed=self._tree))
        except (InvalidExpression, TypeError, ArithmeticError, ValueError, RecursionError):
            return False
        finally:
            self._evaluator.names = {}

    def __repr__(self) -> str:
        return f"<Condition {self.text!r}>"


def _check(node: ast.AST) -> None:
    if isinstance(node, ast.Name):
        if node.id not in (*NAMES, *_CONSTANTS):
            raise ValueError(f"unknown name {node.id!r}; legal: {', '.join(NAMES)}; texts stand in quotes")
    elif isinstance(node, ast.Constant):
        if not (node.value is None or isinstance(node.value, (str, int, float))):
            raise ValueError(f"a {type(node.value).__name__} is no value that a body could have")
        if isinstance(node.value, int) and abs(node.value) >= 2**64:
            raise ValueError("a number over 64 bits")
    elif type(node) not in _OPERATORS and not isinstance(node, (*_NODES, *_MORE_NODES)):
        raise ValueError(f"there is no {type(node).__name__.lower()} in conditions")
