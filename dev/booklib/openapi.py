"""The page about the HTTP API, from its OpenAPI description."""
import json

HEAD = """# HTTP API

From [openapi.json](../openapi.json), the OpenAPI 3.1 description, which a running API serves at `/api/orders/openapi.json`, with a page to
try requests at `/api/orders/docs`. [The orders API](../api.md) has a command for each of these, sessions and errors included.
"""


def cell(text):
    return " ".join(str(text or "").split()).replace("|", "\\|").replace("<", "&lt;")


def name_of(schema):
    """A schema in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    for word in ("oneOf", "anyOf", "allOf"):
        if word in schema:
            return " or ".join(name_of(one) for one in schema[word])
    if schema.get("type") == "array":
        return f"list of {name_of(schema.get('items', {}))}"
    kind = schema.get("type", "any value")
    kind = " or ".join(kind) if isinstance(kind, list) else kind
    return f"{kind} ({schema['format']})" if "format" in schema else kind


def bounds(schema):
    found = [f"{word} {schema[key]}" for key, word in (("minimum", "at least"), ("maximum", "at most"), ("maxLength", "length up to")) if key in schema]
    if "pattern" in schema:
        found.append(f"matches `{cell(schema['pattern'])}`")
    if "enum" in schema:
        found.append("one of " + ", ".join(f"`{value}`" for value in schema["enum"]))
    return ", ".join(found)


def body(content):
    return ", ".join(f"{name_of(value.get('schema', {}))} as `{kind}`" for kind, value in (content or {}).items())


def page(description):
    parts = [HEAD]
    for path, methods in description["paths"].items():
        shared = methods.get("parameters", [])
        for method, operation in methods.items():
            if method == "parameters":
                continue
            parts.append(f"## {method.upper()} {path}\n\n{operation.get('summary', '').rstrip('.')}.\n")
            if operation.get("description"):
                parts.append(operation["description"].strip().replace("<", "&lt;") + "\n")
            if parameters := [*shared, *operation.get("parameters", [])]:
                table = ["| parameter | in | type | what it is |", "|---|---|---|---|"]
                for parameter in parameters:
                    schema = parameter.get("schema", {})
                    required = "Required. " if parameter.get("required") else ""
                    limits = f" ({bounds(schema)})" if bounds(schema) else ""
                    table.append(f"| `{parameter['name']}` | {parameter['in']} | {name_of(schema)}{limits} | {required}{cell(parameter.get('description'))} |")
                parts.append("\n".join(table) + "\n")
            if request := operation.get("requestBody"):
                parts.append(f"Body: {body(request.get('content'))}.\n")
            table = ["| status | body | when |", "|---|---|---|"]
            for status, response in operation["responses"].items():
                table.append(f"| {status} | {body(response.get('content'))} | {cell(response.get('description'))} |")
            parts.append("\n".join(table) + "\n")
    parts.append("## Types\n")
    for name, schema in description["components"]["schemas"].items():
        parts.append(f"### {name}\n\n{cell(schema.get('description'))}\n")
        if "properties" in schema:
            table = ["| field | type | what it is |", "|---|---|---|"]
            for field, value in schema["properties"].items():
                limits = f" ({bounds(value)})" if bounds(value) else ""
                required = "" if field in schema.get("required", []) else "May be missing. "
                table.append(f"| `{field}` | {name_of(value)}{limits} | {required}{cell(value.get('description'))} |")
            parts.append("\n".join(table) + "\n")
        elif bounds(schema):
            parts.append(f"{bounds(schema)[0].upper()}{bounds(schema)[1:]}.\n")
        elif name_of(schema) != "any value":
            parts.append(f"Type: {name_of(schema)}.\n")
    parts.append("## Signing in\n")
    table = ["| scheme | how |", "|---|---|"]
    for name, scheme in description["components"].get("securitySchemes", {}).items():
        where = f"{scheme['in']} `{scheme['name']}`" if "in" in scheme else f"`Authorization: {scheme.get('scheme', '').capitalize()}`"
        table.append(f"| {name} | {where}. {cell(scheme.get('description'))} |")
    parts.append("\n".join(table) + "\n")
    return "\n".join(part for part in parts)
