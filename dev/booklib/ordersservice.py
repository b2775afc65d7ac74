"""The OrdersService, from its CustomResourceDefinition: the page of the reference, and a JSON schema for editors."""
import json

import yaml

HEAD = """# OrdersService

Every field of an OrdersService (`ticketing.dev/v1alpha1`, short name `osvc`), from its CustomResourceDefinition. `kubectl explain
osvc.spec --recursive` shows the same of the version that is installed. A field without "required" may be left out.

[Examples](../../examples) are in the repository. Editors complete and check OrdersServices by
[crds/ordersservice.schema.json](../../crds/ordersservice.schema.json): [everyday tasks](../tasks.md#write-ordersservices-in-an-editor).
"""
TYPES = {"integer": "integer", "string": "string", "boolean": "boolean", "number": "number"}
BOUNDS = (("minimum", "at least {}"), ("maximum", "at most {}"), ("minLength", "at least {} characters"), ("maxLength", "up to {} characters"),
          ("minItems", "at least {}"), ("maxItems", "up to {}"), ("maxProperties", "up to {} entries"), ("pattern", "matches `{}`"))
# Kubernetes' own types are described there.
ELSEWHERE = ("nodeAffinity", "podAffinity", "podAntiAffinity")


def read(path):
    return yaml.safe_load(path.read_text())


def version(crd):
    return crd["spec"]["versions"][0]


def of_object(crd):
    return version(crd)["schema"]["openAPIV3Schema"]


def kind(field):
    """What a field is, in a word or two."""
    if field.get("x-kubernetes-int-or-string"):
        return "integer or string"
    if field.get("type") == "array":
        return f"list of {plural(kind(field['items']))}"
    if field.get("type") == "object":
        return f"map of {plural(kind(field['additionalProperties']))}" if isinstance(field.get("additionalProperties"), dict) else "object"
    return TYPES.get(field.get("type"), "any value")


def plural(word):
    return {"any value": "values", "integer or string": "integers or strings"}.get(word, word if word.startswith(("list", "map")) else word + "s")


def cell(text):
    """A text as a cell of a table, in which line breaks and bars have another meaning."""
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;")


def shown(value):
    """A value as YAML has it."""
    return cell(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def bounds(field):
    found = [text.format(str(field[name]).replace("|", "\\|")) for name, text in BOUNDS if name in field]
    found = ["not empty" if text in ("at least 1 characters", "at least 1") and field.get("type") != "integer" else text for text in found]
    if "enum" in field:
        found.append("one of " + ", ".join(f"`{value}`" for value in field["enum"] if value is not None))
    items = field.get("items")
    if items and items.get("type") in TYPES and bounds(items):
        found.append("each " + ", ".join(bounds(items)))
    return found


def row(path, field, required):
    notes = [*(["required"] if required else []), *([f"default: `{shown(field['default'])}`"] if "default" in field and "Default:" not in field.get("description", "") else []), *bounds(field)]
    told = cell(field.get("description", ""))
    rules = [cell(rule["message"]) for rule in field.get("x-kubernetes-validations", []) if "message" in rule]
    if rules:
        told = " ".join([told, "**Refused with:**", "; ".join(rules) + "."]).strip()
    return f"| `{path}` | {kind(field)} | {told} | {'; '.join(notes)} |"


def rows(path, schema, top=False):
    inner = schema.get("items", schema)
    for name, field in inner.get("properties", {}).items():
        here = name if top else f"{path}{'[]' if 'items' in schema else ''}.{name}"
        yield row(here, field, name in inner.get("required", []))
        if name not in ELSEWHERE:
            yield from rows(here, field)


def page(crd):
    whole = of_object(crd)
    spec, status = whole["properties"]["spec"], whole["properties"]["status"]
    parts = [HEAD]
    table = ["| field | type | what it is | bounds |", "|---|---|---|---|"]
    alone = [name for name, field in spec["properties"].items() if not field.get("items", field).get("properties")]
    parts.append("## spec: the plain fields\n")
    rules = [cell(rule["message"]) for rule in spec.get("x-kubernetes-validations", []) if "message" in rule]
    if rules:
        parts.append("What is refused of several fields together:\n\n" + "\n".join(f"- {rule}" for rule in rules) + "\n")
    parts.append("\n".join([*table, *(row(name, spec["properties"][name], name in spec["required"]) for name in alone)]) + "\n")
    for name, field in spec["properties"].items():
        if name in alone:
            continue
        required = "Required. " if name in spec["required"] else ""
        default = f" Default: `{shown(field['default'])}`." if "default" in field and "Default:" not in field.get("description", "") else ""
        told = " ".join(field.get("description", "").split()).replace("<", "&lt;")
        parts.append(f"## spec.{name}\n\n{required}{told}{default}\n")
        rules = [cell(rule["message"]) for rule in field.get("x-kubernetes-validations", []) if "message" in rule]
        if rules:
            parts.append("What is refused, and with which message:\n\n" + "\n".join(f"- {rule}" for rule in rules) + "\n")
        parts.append("\n".join([*table, *rows(name, field)]) + "\n")
    parts.append("## status\n\nWritten by the operator only. [Conditions and reasons](../conditions.md) explains `conditions`.\n")
    parts.append("\n".join([*table, *rows("status", status)]) + "\n")
    parts.append("## Columns of `kubectl get osvc`\n\nThose marked *wide* are shown with `-o wide`.\n")
    columns = ["| column | what it shows |", "|---|---|"]
    for column in version(crd)["additionalPrinterColumns"]:
        wide = " (*wide*)" if column.get("priority") else ""
        columns.append(f"| {column['name'].upper()}{wide} | {cell(column.get('description', 'Time since it was made'))} |")
    parts.append("\n".join(columns) + "\n")
    return "\n".join(parts)


def schema(crd):
    """A JSON schema of an OrdersService as somebody writes it. What the API server would drop is refused."""
    names = crd["spec"]["names"]
    whole = of_object(crd)
    written = closed({"properties": {"spec": whole["properties"]["spec"], "status": whole["properties"]["status"]}})["properties"]
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": names["kind"],
        "description": whole["description"],
        "type": "object",
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "additionalProperties": False,
        "properties": {
            "apiVersion": {"const": f"{crd['spec']['group']}/{version(crd)['name']}"},
            "kind": {"const": names["kind"]},
            "metadata": {"type": "object", "required": ["name"], "description": "Name, namespace, labels and annotations."},
            **written,
        },
    }


def closed(field):
    """A field of the CRD in the words of JSON schema: without Kubernetes' own, and without room for other fields."""
    kept = {name: value for name, value in field.items() if not name.startswith("x-kubernetes-") and name not in ("nullable", "format")}
    if field.get("format") == "date-time":
        kept["format"] = "date-time"
    if field.get("x-kubernetes-int-or-string"):
        kept["type"] = ["integer", "string"]
    for name in ("properties", "patternProperties"):
        if name in kept:
            kept[name] = {key: closed(value) for key, value in kept[name].items()}
    for name in ("items", "additionalProperties"):
        if isinstance(kept.get(name), dict):
            kept[name] = closed(kept[name])
    if "properties" in kept and not field.get("x-kubernetes-preserve-unknown-fields"):
        kept.setdefault("additionalProperties", False)
    if field.get("nullable") and "type" in kept:
        kept["type"] = [*([kept["type"]] if isinstance(kept["type"], str) else kept["type"]), "null"]
        if "enum" in kept and None not in kept["enum"]:
            kept["enum"] = [*kept["enum"], None]
    return kept
