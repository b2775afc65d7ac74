"""The examples, by the schema for editors: each names it, each is right by it, and what is no field is refused."""
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from bedlib.report import BedError

KIND = "OrdersService"
# What the schema must refuse, and the word that it must refuse it with.
WRONG = (
    (["replica"], 2, "replica"),
    (["ingress", "routes", 0, "services"], "auth-srv", "services"),
    (["replicas"], "two", "two"),
    (["expiration", "windowSeconds"], 0, "0"),
    (["imagePullPolicy"], "Sometimes", "Sometimes"),
)


def documents(file):
    """The objects of a file."""
    return [document for document in yaml.safe_load_all(file.read_text()) if document]


def kinds(file):
    return {each.get("kind") if isinstance(each, dict) else None for each in documents(file)}


def files(root):
    """The files with OrdersServices."""
    return [file for file in sorted((root / "examples").rglob("*.yaml")) if KIND in kinds(file)]


def without_modeline(root, schema):
    for file in files(root):
        if others := kinds(file) - {KIND}:
            yield f"{file.relative_to(root)}: an editor has one schema for a file: write {', '.join(map(str, others))} into another one"
        line = f"# yaml-language-server: $schema={os.path.relpath(root / schema, file.parent)}"
        if file.read_text().split("\n", 1)[0] != line:
            yield f"{file.relative_to(root)}: its first line must be `{line}`, by which editors find the schema"


def validated(schema, files, packages):
    """What check-jsonschema says of each file that is not right, by the file's name."""
    environment = {**os.environ, "PYTHONPATH": str(packages), "PYTHONDONTWRITEBYTECODE": "1"}
    words = [sys.executable, "-m", "check_jsonschema", "--schemafile", schema, "--output-format", "json", *files]
    told = subprocess.run(words, capture_output=True, text=True, env=environment)
    try:
        answer = json.loads(told.stdout)
    except ValueError:
        raise BedError(f"check-jsonschema ended with {told.returncode}: {told.stdout}{told.stderr}") from None
    errors = [*answer.get("errors", []), *answer.get("parse_errors", [])]
    return {Path(error["filename"]).name: json.dumps(error) for error in errors}


def problems(root, schema, packages):
    found = files(root)
    if not found:
        yield "examples: no file has an OrdersService"
        return
    with tempfile.TemporaryDirectory() as folder:
        copies, names = [], {}

        def write(name, document, what):
            copies.append(Path(folder) / name)
            copies[-1].write_text(json.dumps(document, default=str))
            names[name] = what

        for number, file in enumerate(found):
            for each, document in enumerate(documents(file)):
                write(f"right-{number}-{each}.json", document, file.relative_to(root))
        right = documents(root / "examples/30-orders.yaml")[0]
        for number, (path, value, _) in enumerate(WRONG):
            wrong = json.loads(json.dumps(right, default=str))
            place = wrong["spec"]
            for name in path[:-1]:
                place = place.setdefault(name, {}) if isinstance(place, dict) else place[name]
            place[path[-1]] = value
            write(f"wrong-{number}.json", wrong, f"spec.{'.'.join(map(str, path))}: {value}")
        told = validated(schema, copies, packages)
        if refused := [name for name in names if name.startswith("right") and name in told]:
            yield from (f"{names[name]} is not what {schema.name} describes: {told[name]}" for name in refused)
            return
        for number, (_, _, word) in enumerate(WRONG):
            name = f"wrong-{number}.json"
            if word not in told.get(name, ""):
                yield f"{schema.name} does not refuse {names[name]}"
