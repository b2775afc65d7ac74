"""The images in a cluster that is not ours: those that were pushed, or built here and loaded into kind or minikube."""
import json
import os
import shutil

from .telling import Failed, run


class Images:
    """Both images: named by IMAGE and STAND_IN_IMAGE, or by what is built here."""

    def __init__(self, context):
        self.operator, self.stand_in = os.environ.get("IMAGE"), os.environ.get("STAND_IN_IMAGE")
        self.load = None
        for variable, image in (("IMAGE", self.operator), ("STAND_IN_IMAGE", self.stand_in)):
            if image and ":" not in image.rsplit("/", 1)[-1]:
                raise Failed(f"{variable}={image} has no tag: write {image}:TAG")
        if self.operator and self.stand_in:
            return
        if self.operator or self.stand_in:
            raise Failed("give both IMAGE and STAND_IN_IMAGE, or neither")
        self.load = loader(context)
        if not self.load:
            raise Failed(
                f"the context {context} is neither of kind nor of minikube (or their program is not on the PATH), so images that are built here "
                "cannot be loaded into it. Push them, and name them:\n"
                "        docker build -t REGISTRY/orders-operator:demo . && docker push REGISTRY/orders-operator:demo\n"
                "        docker build -t REGISTRY/stand-in:demo dev/stand-in && docker push REGISTRY/stand-in:demo\n"
                f"        make demo CLUSTER=current IMAGE=REGISTRY/orders-operator:demo STAND_IN_IMAGE=REGISTRY/stand-in:demo")
        if not shutil.which("docker"):
            raise Failed("docker is not on the PATH, and builds the images: install it, or give IMAGE and STAND_IN_IMAGE")

    def __str__(self):
        if self.load:
            return f"built here by docker, then `{' '.join(self.load)}`; they stay in its nodes"
        return f"{self.operator} and {self.stand_in}"

    def bring(self, story):
        """Builds and loads them, unless they are in the cluster's reach already."""
        if self.load:
            story.step("operator image built and loaded", self._bring_operator)
            story.step("stand-in image built and loaded", self._bring_stand_in)

    def _bring_operator(self):
        self.operator = self._bring("orders-operator", ".")
        return self.operator

    def _bring_stand_in(self):
        self.stand_in = self._bring("orders-stand-in", "dev/stand-in")
        return self.stand_in

    def _bring(self, name, folder):
        run("docker", "build", "--tag", f"{name}:demo", folder, quiet=False)
        # A name of its own for each build: pods keep an image that has the same name.
        image = f"{name}:{run('docker', 'image', 'inspect', '--format', '{{.Id}}', f'{name}:demo').removeprefix('sha256:')[:12]}"
        run("docker", "tag", f"{name}:demo", image)
        run(*self.load, image)
        return image


def loader(context):
    """The command that loads an image, whose name follows, into the cluster of a context; None if there is none."""
    if context.startswith("kind-") and shutil.which("kind"):
        name = context.removeprefix("kind-")
        if name in run("kind", "get", "clusters").split():
            return ["kind", "load", "docker-image", "--name", name]
    if shutil.which("minikube"):
        try:
            profiles = json.loads(run("minikube", "profile", "list", "--output", "json")).get("valid") or []
        except (Failed, ValueError):
            profiles = []
        if context in (profile.get("Name") for profile in profiles):
            return ["minikube", "image", "load", "--profile", context]
    return None
