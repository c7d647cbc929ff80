"""Lines of the log that say which measures are left out."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class LeftOut:
    """A note that measures are left out. As text it is the line for results that have none of their numbers.

    Args:
        what: the measures; ``{}`` stands for the parts that a line is about.
        parts: by word for ``{}``, the names of the blocks that are left out.
        reason: why, and perhaps what turns them on.
    """

    what: str
    parts: Mapping[str, Collection[str]]
    reason: str

    def lines(self, there: Collection[str] = ()) -> Iterator[str]:
        """Yield a line for the parts that are left out, and one for those with numbers from before.

        Args:
            there: names of the blocks that the results have from an earlier call.
        """
        kept = [word for word, blocks in self.parts.items() if any(name in there for name in blocks)]
        others = [word for word in self.parts if word not in kept]
        told = {
            "is left out": others,
            "is not measured again, and its numbers from an earlier call are kept": kept,
        }
        for said, words in told.items():
            if words:
                yield f"{self.what.replace('{}', ', '.join(words))} {said}: {self.reason}"

    def __str__(self) -> str:
        return next(self.lines())


Note = str | LeftOut  # a line as it is, or one that depends on what is there
