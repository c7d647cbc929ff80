"""What values a key of a config accepts: a type and limits."""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass, replace
from typing import Any

from fmvae.common.text import expand_home

LARGEST = 2**63 - 1  # the largest int64, torch's integer type


@dataclass(frozen=True)
class Rule:
    """The values that a key accepts: a type, limits, and whether null is allowed (``optional``)."""

    type: type
    minimum: float = -math.inf
    above: float = -math.inf
    maximum: float = math.inf
    below: float = math.inf
    choices: tuple[str, ...] = ()
    optional: bool = False
    of: type | None = None  # type of a list's items
    pattern: str = ""  # regular expression that a text must match as a whole
    spare: bool = False  # only read by a constructor that has a default for it; may be removed with ~key
    called: str = ""  # description in messages, if the type's name is not enough
    many: bool = False  # a list of one or more such values is accepted, too
    path: bool = False  # the path of a file or folder: ~ is expanded to the home directory

    def __str__(self) -> str:
        names = {
            int: "a whole number",
            float: "a finite number",
            bool: "true or false",
            str: "a text",
            list: "a list of whole numbers, as [0,1]" if self.of is int else "a list of texts, as [a,b]",
        }
        kind = "a list of" if self.type is list else "one of"
        choices = f"{kind} {', '.join(self.choices)}" if self.choices else ""
        name = self.called or choices or names.get(self.type, "a group of keys")
        limits = {">=": self.minimum, ">": self.above, "<=": self.maximum, "<": self.below}
        whole = int in (self.type, self.of)
        bounds = [
            f" {sign} {int(limit) if whole else f'{limit:g}'}"
            for sign, limit in limits.items()
            if math.isfinite(limit)
        ]
        return name + " and".join(bounds) + " or a list of such" * self.many + " or null" * self.optional

    def way_out(self, value: Any) -> str:
        """Return what to do about a value that is not accepted, in addition to what this rule's text says."""
        if self.type is list and isinstance(value, str) and (value in self.choices or self.of is str):
            return f"write it in brackets, as [{value}]"
        for item in value if isinstance(value, list) else [value]:
            close = difflib.get_close_matches(item, self.choices, 1) if isinstance(item, str) else []
            if close and item not in self.choices:
                return f"did you mean {close[0]}?"
        return "leave the key out for the usual value"

    def accept(self, value: Any) -> Any:
        """Return ``value`` converted to this rule's type.

        Raises:
            ValueError: it can't be converted, or is out of range.
            OverflowError: a whole number does not fit into 64 bits.
        """
        if value is None and self.optional:
            return None
        if self.many and isinstance(value, list) and value:
            return [replace(self, many=False, optional=False).accept(item) for item in value]
        if self.type in (int, float):
            return self._accept_number(value)
        if self.type is str and type(value) is int and not self.choices:
            value = str(value)  # a name, as sweep_name=2024
        if not isinstance(value, self.type):
            raise ValueError
        items: list[Any] = value if isinstance(value, list) else [value]
        if self.choices and not all(item in self.choices for item in items):
            raise ValueError
        if self.pattern and not re.fullmatch(self.pattern, str(value)):
            raise ValueError
        if self.of and isinstance(value, list) and not all(type(item) is self.of for item in value):
            raise ValueError
        if self.of is int and not all(self.minimum <= item <= self.maximum for item in items):
            raise ValueError
        return self._accept_path(str(value)) if self.path else value

    @staticmethod
    def _accept_path(value: str) -> str:
        value.encode()  # raises UnicodeEncodeError, a ValueError, if the path can't be written to a file
        return expand_home(value)

    def _accept_number(self, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError
        number = int(value) if self.type is int else float(value) + 0.0  # + 0.0 turns -0.0 into 0.0
        if self.type is int and abs(number) > LARGEST:
            raise OverflowError
        inside = self.minimum <= number <= self.maximum and self.above < number < self.below
        if number != value or not inside:
            raise ValueError
        return number
