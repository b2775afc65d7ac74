"""What an OCI archive has."""
import gzip
import io
import json
import tarfile


def sizes(archive):
    """How many bytes the layers of an image have: as a registry keeps them and nodes fetch them, and unpacked."""
    with tarfile.open(archive) as tar:
        def blob(described):
            return tar.extractfile("blobs/" + described["digest"].replace(":", "/")).read()

        index = json.load(tar.extractfile("index.json"))
        layers = [(layer, blob(layer)) for manifest in index["manifests"] for layer in json.loads(blob(manifest))["layers"]]
    kept, unpacked = 0, 0
    for layer, data in layers:
        kept += len(data)
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(data) if layer["mediaType"].endswith("gzip") else data)) as files:
            unpacked += sum(member.size for member in files)
    return kept, unpacked
