"""Settings of the documentation site: Sphinx, Markdown pages, API reference from docstrings."""

from __future__ import annotations

from importlib.metadata import version as installed_version
from typing import Any

project = "conpet"
project_copyright = "the conpet authors, Apache-2.0"
release = installed_version("conpet")
version = release

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns: list[str] = []
nitpicky = False  # type hints name torch's and pydantic's classes, whose pages are not part of this site
default_role = "code"
highlight_language = "none"

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
myst_links_external_new_tab = True

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_class_signature = "separated"
autodoc_default_options = {"exclude-members": "__init__, __new__, model_config"}
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = "conpet"
html_show_sourcelink = False


def mark_code_blocks(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Turn an indented block after a blank line into a code block, as in Markdown."""
    marked: list[str] = []
    for number, line in enumerate(lines):
        before = next((one for one in reversed(lines[:number]) if one.strip()), "")
        starts = line.startswith("    ") and not before.startswith("    ") and number and not lines[number - 1].strip()
        if starts and not before.rstrip().endswith(":"):
            marked += ["::", ""]
        elif starts:
            marked[-2] = marked[-2].rstrip().removesuffix(":") + "::"
        marked.append(line)
    if what in {"attribute", "property"}:
        marked[0] = marked[0].replace(": ", " – ", 1)  # before a colon, napoleon expects a type
    lines[:] = marked


def name_language(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Name the language of Japanese pages, for screen readers and fonts."""
    if page.startswith("learn/ja/"):
        context["language"] = "ja"


def setup(app: Any) -> None:
    """Connect the hooks; the first runs before napoleon reads the sections of a docstring."""
    app.connect("autodoc-process-docstring", mark_code_blocks, priority=400)
    app.connect("html-page-context", name_language)
