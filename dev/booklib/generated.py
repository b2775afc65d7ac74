"""Which files of the book are generated, from what; writing and checking them."""
import json
import os
import subprocess
import sys
from pathlib import Path

from bedlib.report import say

from . import examples, flags, metrics, openapi, ordersservice, values

ROOT = Path(__file__).resolve().parent.parent.parent
SCHEMA = "crds/ordersservice.schema.json"


def wanted(program):
    """Every generated file, with its text."""
    crd = ordersservice.read(ROOT / "crds/ordersservices.yaml")
    yield SCHEMA, json.dumps(ordersservice.schema(crd), indent=1) + "\n"
    yield "docs/reference/ordersservice.md", ordersservice.page(crd)
    yield "docs/reference/http.md", openapi.page(json.loads((ROOT / "docs/openapi.json").read_text()))
    yield "docs/reference/metrics.md", metrics.page(ROOT)
    yield "docs/reference/values.md", values.page((ROOT / "charts/orders-operator/values.yaml").read_text())
    if program:
        yield "docs/reference/flags.md", flags.page(program.absolute())


def run(command, program, packages):
    """Writes the files, or says which are not current and what else does not hold."""
    stale = []
    for name, text in wanted(program):
        file = ROOT / name
        if file.exists() and file.read_text() == text:
            continue
        if command == "check":
            stale.append(name)
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        say(f"wrote {name}")
    if stale:
        say(f"error: {', '.join(stale)}: not what it would be generated as now; `make generate` writes it anew")
        return 1
    if command == "generate":
        return 0
    problems = [*examples.without_modeline(ROOT, SCHEMA), *examples.problems(ROOT, ROOT / SCHEMA, packages)]
    for problem in problems:
        say(f"error: {problem}")
    return 1 if problems else 0
