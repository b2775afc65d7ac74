"""The alerts of the chart."""
import shutil
import subprocess
import textwrap

from . import tools
from .report import BedError


def rules():
    """The content of the PrometheusRule, which is that of a file of rules."""
    helm = shutil.which("helm") or tools.cluster() / "helm"
    command = [helm, "template", "orders-operator", tools.DEV.parent / "charts/orders-operator", "--set", "monitoring.alerts.enabled=true"]
    output = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if output.returncode:
        raise BedError(f"alerts: helm cannot render the chart: {output.stderr.strip()}")
    objects = [each for each in output.stdout.split("\n---\n") if "\nkind: PrometheusRule\n" in each]
    if len(objects) != 1:
        raise BedError(f"alerts: the chart has {len(objects)} PrometheusRules, not one")
    return textwrap.dedent(objects[0].split("\nspec:\n", 1)[1])
