"""Hooks of MkDocs: what the site has besides the pages in docs/.

The README is the first page, the other Markdown files beside it are pages, each package of ``fmvae`` has a page of
reference made from its docstrings, and files of the project that pages link to are copied. Links are changed to
fit, so that the same text works on GitHub.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
PAGES = {"README.md": "index.md"} | {name: name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")}
COPIES = "project"  # the folder of the site with copies of the project's files
LINK = re.compile(r"(\]\()(?!\w+:|#)([^)\s#]+)|(src=\")(?!\w+:)([^\"]+)")
EMPTY_HEAD = re.compile(r"<thead>\s*<tr>\s*(?:<th[^>]*></th>\s*)+</tr>\s*</thead>\s*")
INNER_NAV = re.compile(r'<nav class="md-nav" aria-label="[^"]*">')
UNNAMED = 'data-md-component="search" role="dialog"'
CODE = re.compile(r"^(?:```.*?^```|    .*?$)|`[^`\n]+`", re.DOTALL | re.MULTILINE)


def packages() -> list[str]:
    """Return the names of the packages of fmvae, each of which gets a page of reference."""
    return sorted(path.parent.name for path in (ROOT / "fmvae").glob("*/__init__.py"))


def modules(package: str) -> list[str]:
    """Return the full names of a package's modules that have something to show, the package itself first."""
    found = sorted((ROOT / "fmvae" / package).rglob("*.py"))
    named = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in found}
    return [
        name.removesuffix(".__init__")
        for name, path in named.items()
        if not name.endswith("__main__")
        and (path.name != "__init__.py" or path.read_text(encoding="utf-8").strip())
    ]


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages of reference into the navigation."""
    config.nav = [
        {"Reference": [{package: f"reference/{package}.md"} for package in packages()]}
        if isinstance(entry, dict) and "Reference" in entry
        else entry
        for entry in config.nav or []
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/, and the files that pages link to."""
    for source, target in PAGES.items():
        files.append(File.generated(config, target, content=(ROOT / source).read_text(encoding="utf-8")))
    for name in ("iframe-worker.js", "site.js", "site.css"):
        content = Path(__file__).with_name(name).read_bytes()
        files.append(File.generated(config, f"assets/{name}", content=content))
    for package in packages():
        text = "\n\n".join([f"# fmvae.{package}", *(f"::: {name}" for name in modules(package))])
        files.append(File.generated(config, f"reference/{package}.md", content=text + "\n"))
    for file in list(files.documentation_pages()):
        for link in re.finditer(LINK, CODE.sub("", file.content_string)):
            target = _in_project(file.src_uri, link[2] or link[4])
            if target and (ROOT / target).is_file() and not files.get_file_from_path(f"{COPIES}/{target}"):
                content = (ROOT / target).read_bytes()
                files.append(File.generated(config, f"{COPIES}/{target}", content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Change the links of a page to where the site has their targets."""
    here = page.file.src_uri

    def changed(link: re.Match[str]) -> str:
        start, target = link[1] or link[3], link[2] or link[4]
        path = posixpath.normpath(posixpath.join(_folder_on_github(here), target))
        if path in PAGES:
            site = PAGES[path]
        elif path.startswith("docs/"):
            site = path.removeprefix("docs/")
        elif (copied := _in_project(here, target)) and (ROOT / copied).is_file():
            site = f"{COPIES}/{copied}"
        else:
            return link[0]  # MkDocs says that there is no such file
        return start + posixpath.relpath(site, posixpath.dirname(here) or ".")

    kept = [found[0] for found in CODE.finditer(markdown)]
    between = [LINK.sub(changed, text) for text in CODE.split(markdown)]
    return "".join(text + code for text, code in zip(between, [*kept, ""], strict=True))


def _folder_on_github(page: str) -> str:
    """Return the folder in the project of a page of the site."""
    return "" if page in PAGES.values() else posixpath.dirname(f"docs/{page}")


def _in_project(page: str, target: str) -> str | None:
    """Return the path of a link's target in the project, if that is a file outside docs/ and no page."""
    path = posixpath.normpath(posixpath.join(_folder_on_github(page), target))
    return None if path.startswith(("docs/", "..")) or path in PAGES else path


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leave out empty heads of tables, as those of pictures side by side; an empty corner heads nothing."""
    return EMPTY_HEAD.sub("", html).replace("<th></th>", "<td></td>")


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    return _accessible(output)


def on_post_template(output_content: str, template_name: str, config: MkDocsConfig) -> str:
    return _accessible(output_content) if template_name == "404.html" else output_content


def _accessible(html: str) -> str:
    """Mend the theme's HTML for screen readers.

    Its search dialog has no name. Each level of a table of contents is a landmark of its own, several by one name.
    """
    if html.count(UNNAMED) != 1:
        raise PluginError(f"the theme's search dialog is not {UNNAMED!r} any more: it may have a name now")
    return INNER_NAV.sub('<nav class="md-nav" role="none">', html).replace(
        UNNAMED, f'{UNNAMED} aria-label="Search"'
    )
