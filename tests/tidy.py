"""House rules no linter has: file length, no registry hosts, no paths of one machine. Exits 1 and names each breach."""

import re
import subprocess
import sys
from pathlib import Path

LINES_MAX = 400
ROOT = Path(__file__).resolve().parent.parent
REGISTRY = re.compile(r"pypi\.(org|python)|pythonhosted\.|registry\.npm|deb\.debian\.")
CLOCK = re.compile(r"\bdatetime\.(now|utcnow|today)\(|\bdate\.today\(")
"""In core, which is told the time."""
MACHINE_PATH = re.compile(r"(?<![A-Za-z0-9_./-])/(work|farm|home/[a-z]+)/")


def tracked() -> list[Path]:
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def breaches(path: Path) -> list[str]:
    if path == Path(__file__).resolve():
        return []
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return []
    found = []
    name = path.relative_to(ROOT)
    lines = text.count("\n")
    if name.parts[0] == "replicator" and path.suffix == ".py" and lines > LINES_MAX:
        found.append(f"{name}: {lines} lines, the end is {LINES_MAX}: which two ideas are in it?")
    found.extend(f"{name}: names a package registry's host" for _ in REGISTRY.findall(text)[:1])
    found.extend(f"{name}: names a path of one machine" for _ in MACHINE_PATH.findall(text)[:1])
    if name.parts[:2] == ("replicator", "core"):
        found.extend(f"{name}: core reads a clock" for _ in CLOCK.findall(text)[:1])
    return found


def main() -> int:
    all_breaches = [line for path in tracked() for line in breaches(path)]
    print("\n".join(all_breaches) if all_breaches else "tidy: no breach")
    return 1 if all_breaches else 0


if __name__ == "__main__":
    sys.exit(main())
