"""The page about the chart's values, from the comments in values.yaml."""
import re

HEAD = """# Values of the chart

From [values.yaml](../../charts/orders-operator/values.yaml). Set them by `--set NAME=VALUE`, or in a file that you give by `--values`.

| value | default | what it is |
|---|---|---|
"""
LINE = re.compile(r"^( *)([\w-]+):(?: (.*))?$")


def cell(text):
    return text.replace("|", "\\|").replace("<", "&lt;")


def rows(text):
    """Each value that has a comment of its own (`# --`), with its path; what is below it belongs to it."""
    path, told, within, found = [], None, None, []
    for line in text.splitlines():
        comment = line.strip()
        if comment.startswith("# --"):
            told = comment.removeprefix("# --").strip()
            continue
        if comment.startswith("#"):
            # The rest of a comment that has begun; the schema of a value is not for readers.
            if told and not comment.startswith("# @"):
                told += " " + comment.lstrip("# ")
            continue
        match = LINE.match(line)
        if not match:
            told = None if not comment else told
            continue
        depth = len(match[1]) // 2
        if within is not None and depth > within:
            found[-1][1].append(comment)
            continue
        within = None
        path = [*path[:depth], match[2]]
        value = (match[3] or "").split("  #")[0].strip()
        if told is not None:
            found.append((".".join(path), [value] if value else [], told))
            within = None if value else depth
        elif value:
            found.append((".".join(path), [value], ""))
        told = None
    for name, lines, told in found:
        is_map = len(lines) > 1 or lines and lines[0][0] not in "{[\"'" and ": " in lines[0]
        yield name, "{" + ", ".join(lines) + "}" if is_map else "".join(lines), told


def page(text):
    return HEAD + "".join(f"| `{name}` | {f'`{cell(value)}`' if value else ''} | {cell(told)} |\n" for name, value, told in rows(text))
