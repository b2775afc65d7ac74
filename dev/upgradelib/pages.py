"""The commands of pages, word by word: what is tried is what people are told to type."""
import re

from demolib.telling import Failed, run


def section(text, title):
    """A section of a page, with those below it."""
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,2}} |^\1 |\Z)", text, re.MULTILINE | re.DOTALL)
    if not found:
        raise Failed(f"the page has no section {title!r}")
    return found[2]


def command(text, beginning):
    """The first command in a block or a line of the text that begins so, without the comment behind it and without a break."""
    found = re.search(rf"^ *({re.escape(beginning)}(?:[^\n]*\\\n)*[^\n]*)$|`({re.escape(beginning)}[^`]*)`", text, re.MULTILINE)
    if not found:
        raise Failed(f"no command begins with {beginning!r}")
    return re.sub(r"\s*\\\n\s*", " ", found[1] or found[2]).split("   #")[0].strip()


def typed(line, environment, folder):
    """Types a command, as someone in this folder does."""
    run("bash", "-euo", "pipefail", "-c", line, env=environment, cwd=folder)
    return line
