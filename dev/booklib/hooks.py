"""What MkDocs is told beyond mkdocs.yml: pages that are outside docs/, links to files that are no pages, and mermaid's script.

The same Markdown is read on the repository's own pages, so its links lead to files: `../SECURITY.md`, `../examples`. In the site
those that are pages lead to the page, and others to the repository.
"""
import os
import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent.parent
# Pages that are kept where everybody looks for them.
OUTSIDE = {"SECURITY.md": "security.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "dev/README.md": "test-bed.md"}
LINK = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
FENCED = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)
SCRIPT = "assets/mermaid.min.js"


def listed(nav):
    """Every page that a list of pages names."""
    for entry in nav:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            yield from listed(value) if isinstance(value, list) else [value]


def on_config(config):
    named = set(listed(config.nav))
    pages = sorted(path.relative_to(config.docs_dir).as_posix() for path in Path(config.docs_dir).rglob("*.md"))
    if further := [page for page in pages if page not in named]:
        config.nav.append({"Further pages": further})
    if os.environ.get("MERMAID"):
        config.extra_javascript.append(SCRIPT)
    return config


def on_files(files, config):
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    if script := os.environ.get("MERMAID"):
        files.append(File.generated(config, SCRIPT, abs_src_path=script))
    return files


def on_page_markdown(markdown, page, config, files):
    source = next((name for name, uri in OUTSIDE.items() if uri == page.file.src_uri), f"docs/{page.file.src_uri}")

    def link(match):
        text, target, anchor = match[1], match[2], match[3] or ""
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        uri = OUTSIDE.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
        if uri:
            return f"[{text}]({posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or '.')}{anchor})"
        if ":" in target or not (ROOT / path).exists():
            # MkDocs tells of a file that does not exist.
            return match[0]
        if config.repo_url:
            return f"[{text}]({config.repo_url.rstrip('/')}/blob/HEAD/{path}{anchor})"
        # Where the repository is published is not known, so the file is named.
        return text if path.endswith(text.strip("`")) else f"{text} (`{path}`)"

    parts = FENCED.split(markdown)
    return "".join(part if number % 2 else LINK.sub(link, part) for number, part in enumerate(parts))
