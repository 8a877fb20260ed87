"""Make docs/learners.md from the result files of `learners.yaml`, `main.yaml` and `depth.yaml`.

python benchmarks/learners_page.py [--check]     # --check: fail if the page is not what the files give
"""

from __future__ import annotations

import argparse
import re
import sys
from typing import Any

from markdown_page import template
from study import HERE, TITLES, Study

from conpet.config import MethodConfig
from conpet.methods import METHODS

PAGE = HERE.parent / "docs" / "learners.md"
BESIDE = ("sequential", "joint", "emr", "emr*", "dynamic", "lda", "klda")
"""Learners of the main table that are shown with those beyond it."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true")
    page = rendered()
    if parser.parse_args().check:
        if PAGE.read_text(encoding="utf-8") != page:
            print(f"{PAGE} is stale: run python benchmarks/learners_page.py", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(page, encoding="utf-8")
    print(PAGE)
    return 0


def rendered() -> str:
    """Return the page as the result files have it."""
    extra = Study("learners", "main")
    return template("learners.md.j2").render(
        options=options(),
        titles=TITLES,
        extra=extra,
        shown=(*BESIDE, *extra.experiment.learners),
        depth=Study("depth"),
    )


def options() -> list[dict[str, Any]]:
    """Return the settings that only one method has, as its `Config` says."""
    return [
        {"method": method, "name": name, "default": field.default, "meaning": meanings(METHODS[method].Config)[name]}
        for method in METHODS
        for name, field in METHODS[method].Config.model_fields.items()
        if name not in MethodConfig.model_fields
    ]


def meanings(config: type[MethodConfig]) -> dict[str, str]:
    """Return what the docstring of settings says of each."""
    return dict(re.findall(r"^ +(\w+): (.+)$", config.__doc__ or "", re.MULTILINE))


if __name__ == "__main__":
    sys.exit(main())
