"""Who sees every change of pods and OrdersServices: two watches, from which everything that was can be told afterwards."""
import json
import subprocess
import threading
import time
from collections import defaultdict
from datetime import datetime

from .fleet import NAMESPACE, Pod


class Witness:
    """What the API server has told: of pods all that it ever has, of moves to an image what it has since [`Witness.forget`]."""

    def __init__(self, environment):
        self.environment, self.over = environment, threading.Event()
        self.lock, self.children, self.threads = threading.Lock(), {}, []
        # Each pod as it was seen last, by its UID; and the image to which each OrdersService is on its way now.
        self.pods, self.notes = {}, {}
        self.forget()
        for kind, see in (("pods", self._see_pod), ("osvc", self._see_service)):
            self.threads.append(threading.Thread(target=self._watch, args=(kind, see), daemon=True))
            self.threads[-1].start()

    def forget(self):
        """What comes now is another upgrade."""
        with self.lock:
            # The pods of before; when the move of each OrdersService to each image began; and how many were on their way at once at most.
            self.former, self.begun, self.most = set(self.pods), defaultdict(dict), len(self.notes)

    def made(self):
        """The pods that were made since."""
        with self.lock:
            return [pod for uid, pod in self.pods.items() if uid not in self.former]

    def end(self):
        self.over.set()
        while any(thread.is_alive() for thread in self.threads):
            for child in list(self.children.values()):
                child.kill()
            time.sleep(0.1)

    def _watch(self, kind, see):
        # A watch ends when the CRD changes.
        while not self.over.wait(0.1):
            words = ["kubectl", "-n", NAMESPACE, "get", kind, "--watch", "--output-watch-events", "-o", "json"]
            with subprocess.Popen(words, env=self.environment, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.DEVNULL) as child:
                self.children[kind] = child
                for line in child.stdout:
                    event = json.loads(line)
                    if event["type"] not in ("ADDED", "MODIFIED", "DELETED"):
                        # An error, such as that what was watched is another by now.
                        break
                    with self.lock:
                        see(event["type"], event["object"])
                child.kill()

    def _see_pod(self, _event, pod):
        if "app.kubernetes.io/instance" in pod["metadata"].get("labels", {}):
            seen = Pod.of(pod)
            self.pods[seen.uid] = seen

    def _see_service(self, event, service):
        name, note = service["metadata"]["name"], service.get("status", {}).get("upgrade")
        self.notes.pop(name, None)
        if note and event != "DELETED":
            self.notes[name] = note["image"]
            self.begun[note["image"]].setdefault(name, datetime.fromisoformat(note["since"]))
        self.most = max(self.most, len(self.notes))
