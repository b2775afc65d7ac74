"""What an OCI archive has."""
import gzip
import io
import json
import tarfile


def read(archive):
    """The configuration of an archive's one image, and its layers: the description and the bytes of each."""
    with tarfile.open(archive) as tar:
        def blob(described):
            return tar.extractfile("blobs/" + described["digest"].replace(":", "/")).read()

        [described] = json.load(tar.extractfile("index.json"))["manifests"]
        manifest = json.loads(blob(described))
        return json.loads(blob(manifest["config"])), [(layer, blob(layer)) for layer in manifest["layers"]]


def sizes(layers):
    """How many bytes the layers of an image have: as a registry keeps them and nodes fetch them, and unpacked."""
    kept, unpacked = 0, 0
    for layer, data in layers:
        kept += len(data)
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(data) if layer["mediaType"].endswith("gzip") else data)) as files:
            unpacked += sum(member.size for member in files)
    return kept, unpacked
