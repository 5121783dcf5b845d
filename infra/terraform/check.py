"""Checks the Terraform code without the network: format, then init and validate of every module and example.

The AWS provider comes out of a Python package (the extra ``terraform`` of pyproject.toml), installed into an
environment of its own, ``.venv-terraform``, and used as a filesystem mirror. The code is checked in a copy;
no lock file stays behind. Exits 1 for what is wrong; without terraform it says so and exits 0, except in CI.
"""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
PROJECT: Final = HERE.parent.parent
ENVIRONMENT: Final = PROJECT / ".venv-terraform"
MIRROR: Final = ENVIRONMENT / "mirror"
ROOTS: Final = ("modules/region", "examples/two-regions")
# The package holds 2.70 as well, which versions.tf refuses.
PROVIDER_FILE: Final = re.compile(r"terraform-provider-(?P<name>\w+)_(?P<version>3[\d.]+)_(?P<platform>\w+)\.zip")
RUN_S_MAX: Final = 300.0


class CommandError(Exception):
    """A command failed; the message is what it said."""


def run(*command: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    """The standard output of a command. Raises CommandError."""
    done = subprocess.run(  # noqa: S603 - the commands are terraform's and pip's, with arguments of this file
        command,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=RUN_S_MAX,
        check=False,
    )
    if done.returncode:
        raise CommandError(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


class Workspace:
    """A copy of the Terraform code in which terraform runs against the provider of the mirror."""

    def __init__(self, terraform: str, folder: Path) -> None:
        """``folder`` must be empty; it is the caller's to remove."""
        self._terraform = terraform
        self._env = {
            "TF_CLI_CONFIG_FILE": str(folder / "terraform.rc"),
            "CHECKPOINT_DISABLE": "1",
            "TF_IN_AUTOMATION": "1",
        }
        self.code = folder / "terraform"
        shutil.copytree(
            HERE, self.code, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*", "*.py", "__pycache__")
        )
        (folder / "terraform.rc").write_text("")
        prepare_mirror(self)
        (folder / "terraform.rc").write_text(
            f'provider_installation {{\n  filesystem_mirror {{\n    path = "{MIRROR.as_posix()}"\n  }}\n}}\n'
        )

    def terraform(self, root: str, *arguments: str) -> str:
        """Run terraform in one root of the copy, for example ``modules/region``. Raises CommandError."""
        return run(self._terraform, *arguments, cwd=self.code / root, env=self._env)

    def init(self, root: str) -> None:
        self.terraform(root, "init", "-backend=false", "-input=false", "-no-color")


def find_terraform() -> str | None:
    return shutil.which("terraform")


def prepare_mirror(workspace: Workspace) -> None:
    """Unpack the provider once: terraform links an unpacked mirror and would copy a packed one every time."""
    with ENVIRONMENT.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests in parallel, or a test beside make lint
        ready = ENVIRONMENT / ".ready"
        wanted = _requirement()
        if not ready.is_file() or ready.read_text() != wanted:
            _fill_mirror(workspace, wanted)
            ready.write_text(wanted)


def _fill_mirror(workspace: Workspace, wanted: str) -> None:
    run(sys.executable, "-m", "venv", "--clear", ENVIRONMENT, cwd=PROJECT)
    python = ENVIRONMENT / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", wanted, cwd=PROJECT)
    target = MIRROR / _source_address(workspace)
    for archive in ENVIRONMENT.rglob("terraform-provider-*.zip"):
        if match := PROVIDER_FILE.fullmatch(archive.name):
            _unpack(archive, target / match["version"] / match["platform"])


def _requirement() -> str:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    (requirement,) = project["optional-dependencies"]["terraform"]
    return str(requirement)


def _source_address(workspace: Workspace) -> str:
    """Host, namespace and name of the provider as this terraform completes them: the mirror's folders."""
    said = workspace.terraform("modules/region", "providers", "-no-color")
    match = re.search(r"provider\[(.+)]", said)
    if match is None:
        raise CommandError(f"terraform names no provider of modules/region:\n{said}")
    return match[1]


def _unpack(archive: Path, target: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(target)
    for file in target.iterdir():
        file.chmod(0o755)  # zipfile does not keep the executable bit


def check(workspace: Workspace) -> None:
    """Format, init, validate. Raises CommandError."""
    workspace.terraform(".", "fmt", "-check", "-recursive", "-diff", "-no-color")
    for root in ROOTS:
        workspace.init(root)
        workspace.terraform(root, "validate", "-no-color")


def main() -> int:
    terraform = find_terraform()
    if terraform is None:
        print("terraform is not on this machine: infra/terraform was not checked", file=sys.stderr)
        return 1 if os.environ.get("CI") else 0
    with tempfile.TemporaryDirectory() as folder:
        try:
            check(Workspace(terraform, Path(folder)))
        except CommandError as exc:
            print(exc, file=sys.stderr)
            return 1
    print(f"terraform: {', '.join(ROOTS)} are formatted and valid")
    return 0


if __name__ == "__main__":
    sys.exit(main())
