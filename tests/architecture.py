"""The structure of ``fmvae/`` in numbers: ``python -m tests.architecture``.

Modules at its top, import circles (imports for annotations and inside functions count), the longest file, and the
files of a model, an objective, a dataset and a measure of one's own (docs/extending.md).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LONGEST = 300  # lines of a file
MOST_AT_TOP = 6


def files() -> list[str]:
    """The files of the package, relative to the project."""
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "fmvae").rglob("*.py"))


def module_of(path: str) -> str:
    return path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def imports(source: str) -> set[str]:
    """Every module that a source text imports, wherever the import stands."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def graph(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """By module, the modules of the package that it names in its imports."""
    return {module: (imports(source) & set(sources)) - {module} for module, source in sources.items()}


def circles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """The groups of two or more modules that import each other, directly or not (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in edges.get(node, ()):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = []
            while True:
                group.append(stack.pop())
                if group[-1] == node:
                    break
            if len(group) > 1:
                found.append(sorted(group))

    for node in edges:
        if node not in index:
            visit(node)
    return sorted(found)


def sources() -> dict[str, str]:
    """Each module's text."""
    return {module_of(path): (ROOT / path).read_text(encoding="utf-8") for path in files()}


def at_top() -> list[str]:
    """The modules that lie at the top of the package, beside ``__init__``."""
    return sorted(path.stem for path in (ROOT / "fmvae").glob("*.py") if path.stem != "__init__")


def lengths(paths: Iterable[str]) -> dict[str, int]:
    """Lines of each file, the longest first."""
    counted = {path: len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in paths}
    return dict(sorted(counted.items(), key=lambda item: -item[1]))


def doors(page: str) -> dict[str, list[str]]:
    """By each heading of docs/extending.md that gives files, the files that its code blocks are of."""
    found = {}
    for section in page.split("\n## ")[1:]:
        if named := re.findall(r"^```(?:python|yaml)\n# (\S+)$", section, re.MULTILINE):
            found[section.partition("\n")[0]] = named
    return found


def main() -> None:
    top, groups, longest = at_top(), circles(graph(sources())), lengths(files())
    print(f"modules at the top of fmvae/: {len(top)} ({', '.join(top)}); at most {MOST_AT_TOP}")
    print(f"import circles, annotations included: {len(groups)}")
    for group in groups:
        print(f"  {' <-> '.join(group)}")
    path, lines = next(iter(longest.items()))
    print(f"longest file: {path}, {lines} lines; at most {LONGEST}")
    for door, named in doors((ROOT / "docs" / "extending.md").read_text(encoding="utf-8")).items():
        print(f"{door}: {', '.join(named)}; in fmvae/: {sum(name.startswith('fmvae/') for name in named)}")


if __name__ == "__main__":
    main()
