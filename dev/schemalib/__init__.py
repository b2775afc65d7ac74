"""JSON schemas of kinds of objects, as kubeconform reads them: from the OpenAPI description of a version of Kubernetes, and from
CustomResourceDefinitions. A field that a schema does not have is refused."""
import json

from booklib import ordersservice

# kubeconform looks for the schema of an object here, in a folder. The group of the oldest kinds is to it their version.
PLACE = "{{.Group}}/{{.ResourceKind}}-{{.ResourceAPIVersion}}.json"
DEFINITIONS = "#/definitions/"
# What OpenAPI 2 has no word for, and calls a string.
SCALARS = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"type": ["integer", "string"]},
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": ["number", "string"]},
}


def write(folder, group, version, kind, schema):
    place = folder / (group or version) / f"{kind.lower()}-{version}.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(schema))


def references(value):
    """The names of the definitions that a schema refers to. A field may be called `$ref`, too."""
    if isinstance(value, dict):
        if isinstance(target := value.get("$ref"), str):
            yield target.removeprefix(DEFINITIONS)
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def with_what_it_needs(name, definitions):
    """The schema that a definition is, with all that it refers to."""
    found, waiting = {}, [name]
    while waiting:
        if (each := waiting.pop()) not in found:
            found[each] = definitions[each]
            waiting += references(definitions[each])
    return {"$schema": "http://json-schema.org/draft-07/schema#", "$ref": DEFINITIONS + name, "definitions": found}


def of_kubernetes(description, kinds, folder):
    """Writes the schemas of those of these kinds, each a group, a version and a name, that Kubernetes itself has."""
    whole = json.loads(description.read_text())["definitions"]
    definitions = {name: SCALARS.get(name) or ordersservice.closed(definition) for name, definition in whole.items()}
    for name, definition in whole.items():
        of = definition.get("x-kubernetes-group-version-kind", [])
        # What is of many groups is no object by itself, such as the options of a request.
        if len(of) == 1 and (kind := (of[0]["group"], of[0]["version"], of[0]["kind"])) in kinds:
            write(folder, *kind, with_what_it_needs(name, definitions))


def of_crd(crd, folder):
    """Writes the schemas of the versions of a CustomResourceDefinition."""
    spec = crd["spec"]
    for version in spec["versions"]:
        schema = ordersservice.closed(version["schema"]["openAPIV3Schema"])
        for name in ("apiVersion", "kind", "metadata"):
            schema["properties"].setdefault(name, {})
        write(folder, spec["group"], version["name"], spec["names"]["kind"], schema)
