"""A real Prometheus that looks at the product, with the alerts of the chart."""
import json
import time
import urllib.parse
import urllib.request

from bedlib import tools
from bedlib.alerts import rules
from bedlib.report import BedError

INTERVAL = 5
# Debian's program finds its pages in one place only: there this process sees those that were laid out. And what its pages say of
# files is the same whenever pictures are taken.
START = 'mount --bind "$1" /mnt && mount --bind "$0/usr/share" /usr/share && shift && exec "$0/usr/bin/prometheus" "$@"'


class Prometheus:
    """What it knows, and where its pages are."""

    def __init__(self, processes, targets):
        self.processes, self.targets, self.begun = processes, targets, time.time()
        self.url = f"http://127.0.0.1:{processes.port()}"

    def start(self):
        folder = self.processes.folder
        (folder / "rules.yaml").write_text(rules())
        jobs = sorted({labels["job"] for _, labels in self.targets})
        # Its configuration is YAML, of which JSON is a part.
        (folder / "prometheus.yaml").write_text(json.dumps({
            "global": {"scrape_interval": f"{INTERVAL}s", "evaluation_interval": f"{INTERVAL}s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [
                {"job_name": job, "static_configs": [
                    {"targets": [address], "labels": {name: value for name, value in labels.items() if name != "job"}}
                    for address, labels in self.targets if labels["job"] == job]}
                for job in jobs]}))
        self.processes.start(
            "prometheus", "unshare", "--mount", "--propagation", "private", "sh", "-c", START, tools.debian_files("prometheus"), folder,
            "--config.file=/mnt/prometheus.yaml", "--storage.tsdb.path=/mnt/prometheus", f"--web.listen-address={self.url[7:]}")
        self.processes.wait_for_page("prometheus", f"{self.url}/-/ready")

    def ask(self, path, **query):
        """What its API answers."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except (OSError, ValueError) as error:
            told = error.read().decode() if hasattr(error, "read") else ""
            raise BedError(f"screenshots: {url}: {error} {told}") from error

    def series(self, expression):
        """The series of an expression since the beginning, each as its labels and its values."""
        found = self.ask("query_range", query=expression, start=self.begun, end=time.time(), step=INTERVAL)["result"]
        return [(each["metric"], [float(value) for _, value in each["values"]]) for each in found]

    def alerts(self):
        """The names of the alerts that fire, and of those that are about to."""
        states = {}
        for alert in self.ask("alerts")["alerts"]:
            states.setdefault(alert["state"], set()).add(alert["labels"]["alertname"])
        return states

    def graphs(self, expressions, minutes):
        """The page that draws these."""
        words = {}
        for number, expression in enumerate(expressions):
            words |= {f"g{number}.expr": expression, f"g{number}.tab": 0, f"g{number}.range_input": f"{minutes}m", f"g{number}.stacked": 0}
        return f"{self.url}/classic/graph?{urllib.parse.urlencode(words)}"
