"""The page about metrics, from where the programs register them. What the explanations on other pages say more is linked."""
import re

HEAD = """# Metrics

Every metric, with the help that `/metrics` has of it. Each process serves them on its admin port, in the text format of Prometheus:
[how to look at them](../tasks.md#look-at-metrics). Counters end in `_total`; a histogram has `_bucket`, `_sum` and `_count`.
"""
# Title, source, the prefix of the names, and where more is said.
PROCESSES = (
    ("The controller", "src/controller/metrics.rs", "orders_operator_controller_", "port 8081 of the operator's pods; [more](../operations.md#metrics)"),
    ("The sweeper", "src/sweeper/metrics.rs", "orders_operator_sweeper_", "port 8082 of the operator's pods; [more](../sweeper.md#metrics)"),
    ("The orders API", "src/api/metrics.rs", "orders_api_", "port 8081 of the pods of an OrdersService; [more](../api.md#running-it)"),
    ("Events", "src/events/metrics.rs", "orders_events_", "port 8081 of the pods of an OrdersService, where events are on; [more](../events.md#metrics)"),
)
TEXT = r'"((?:[^"\\]|\\.)*)"'
REGISTERED = re.compile(r"register(?:_with_unit)?\(\s*" + TEXT + r",\s*(?:" + TEXT + r"|(\w+)),(.*?)\);", re.DOTALL)
KINDS = (("Histogram", "histogram"), ("Counter", "counter"), ("Gauge", "gauge"))


def kind_of(fields, name):
    """What a field of the struct is, from its type."""
    declared = next((line for line in fields if re.match(rf"\s*(?:pub(?:\([a-z]+\))? )?{name}: ", line)), "")
    return next((kind for word, kind in KINDS if word in declared), "gauge")


def registered(source):
    text = source.split("#[cfg(test)]\nmod tests")[0]
    fields = [line for struct in re.findall(r"struct \w+ \{(.*?)\n\}", text, re.DOTALL) for line in struct.split("\n")]
    for match in REGISTERED.finditer(text):
        name, told, variable, rest = match.groups()
        if variable:
            told = re.findall(rf"let {variable} = " + TEXT, text[:match.start()])[-1]
        told = re.sub(r"\\\n\s*", "", told)
        field = re.findall(r"(\w+)(?:\.clone\(\))?\s*,?\s*$", rest.strip())[-1]
        unit = "_seconds" if match[0].startswith("register_with_unit") else ""
        kind = kind_of(fields, field)
        yield name + unit + ("_total" if kind == "counter" else ""), kind, told.replace('\\"', '"')


def page(root):
    parts = [HEAD]
    for title, source, prefix, where in PROCESSES:
        table = ["| metric | type | what it is |", "|---|---|---|"]
        table += [f"| `{prefix}{name}` | {kind} | {told} |" for name, kind, told in registered((root / source).read_text())]
        parts.append(f"## {title}\n\nAt {where}.\n\n" + "\n".join(table) + "\n")
    parts.append("## Every process\n\n| metric | type | what it is |\n|---|---|---|\n"
                 "| `orders_operator_build_info` | gauge | 1, with the version of the program as the label `version` |\n"
                 "| `process_cpu_seconds_total` | counter | How long the processors have worked for this process |\n"
                 "| `process_resident_memory_bytes` | gauge | Memory that the process has |\n"
                 "| `process_virtual_memory_bytes` | gauge | Address space of the process |\n"
                 "| `process_threads` | gauge | Threads of the process |\n"
                 "| `process_open_fds` | gauge | Files and sockets that are open |\n"
                 "| `process_max_fds` | gauge | How many may be open |\n"
                 "| `process_start_time_seconds` | gauge | Unix time at which the process began |\n"
                 "| `orders_operator_log_lines_dropped_total` | counter | Log lines dropped because the log reader is too slow |\n")
    return "\n".join(parts)
