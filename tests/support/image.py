"""Performs a Dockerfile without a container engine: its steps, in order, in a folder that stands for `/`.

The stage under way always has the same folder, as it would always have `/`, and is put aside when it is complete: what
it installs may name its own place. In commands and settings, the paths that the Dockerfile makes are read as paths in
that folder; all others (`/bin/sh`, the C library) are this machine's, and so is Python: it is copied to where the base
image has it, with pip beside it. Packages come from a folder that was filled beforehand, so that a step which wants
anything else fails. Whoever runs this as root gets the steps run as accounts without any rights.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Self

from tests.support.dockerfile import Ignored, Instruction, Stage, context, stages
from tests.support.replica import Process

MADE = re.compile(r"(?<![\w.*/$-])/(?=(?:opt|src|usr/local)(?:[/:\s\"']|$))")
BUILDER = 65_530  # the account of the steps; the images' own is another, so that the tree is not its
OUTSIDE = {"site-packages", "dist-packages", "test", "idlelib", "tkinter", "config-*", "EXTERNALLY-MANAGED"}
INSTALLERS = ("pip", "setuptools")
PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
TIMEOUT_S = 300


class BuildError(Exception):
    """A step failed, with what it said."""


def wheels(locks: Sequence[Path], folder: Path) -> Path:
    """A folder with the locked packages of this Python; what is there from an earlier run is not fetched again."""
    content = hashlib.sha256(sys.version.encode() + b"".join(lock.read_bytes() for lock in locks)).hexdigest()
    complete = folder / content
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock_file:
        fcntl.flock(lock_file, fcntl.LOCK_EX)
        if complete.is_dir():
            return complete
        for old in folder.iterdir():
            if old.is_dir():
                shutil.rmtree(old)
        fetched = folder / "fetched"
        for lock in locks:
            pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--require-hashes"]
            _run([*pip, "--only-binary", ":all:", "--dest", str(fetched), "--requirement", str(lock)], dict(os.environ))
        return fetched.rename(complete)


class Build:
    """The stages of one Dockerfile. `folder` is an empty one that every account may enter."""

    def __init__(self, repository: Path, dockerfile: Path, wheels: Path, folder: Path) -> None:
        self.stages = stages(dockerfile.read_text())
        self.root = folder / "root"
        self._repository = repository
        self._ignored = Ignored((repository / ".dockerignore").read_text())
        self._aside = folder / "stages"
        self._wheels = folder / "wheels"
        self._account = BUILDER if os.geteuid() == 0 else None
        self._env: dict[str, dict[str, str]] = {}
        self._where: dict[str, str] = {}
        self._aside.mkdir()
        shutil.copytree(wheels, self._wheels)
        _everybody_may_read(folder)

    def perform(self, target: str) -> Image:
        """The stages that this one needs, each once, then itself; it is left in `root`, which is not its user's."""
        self._complete(target)
        self._take(target)
        if self._account is None:  # the user is who built it: as another account would have it
            for path in (self.root, *self.root.rglob("*")):
                if not path.is_symlink():
                    path.chmod(path.stat().st_mode & ~0o222)
        return Image(self, target)

    def env_of(self, target: str) -> dict[str, str]:
        """The variables that the stage's processes start with."""
        return dict(self._env[target])

    def inherited(self, target: str, word: str) -> Instruction:
        """The last instruction of a kind, in the stage or below it."""
        while not (found := self.stages[target].of(word)):
            target = self.stages[target].base
        return found[-1]

    def here(self, text: str) -> str:
        """The paths of a command as paths in the stand-in."""
        return MADE.sub(f"{self.root}/", text)

    def _complete(self, name: str) -> None:
        stage = self.stages[name]
        needed = [stage.base, *(step.flags["from"] for step in stage.of("COPY") if "from" in step.flags)]
        for other in needed:
            if other in self.stages and not (self._aside / other).exists():
                self._complete(other)
        if (self._aside / name).exists():
            return
        if stage.base in self.stages:
            self._take(stage.base)
            env, where = dict(self._env[stage.base]), self._where[stage.base]
        else:
            self._clear()
            _python_of_this_machine(self.root / "usr" / "local")
            library = str(self.root / "usr" / "local" / "lib")  # an image's loader looks there by itself
            env = {"PATH": self.here(PATH), "LANG": "C.UTF-8", "LD_LIBRARY_PATH": library}
            where = "/"
        self._env[name], self._where[name] = self._perform(stage, env, where)
        self.root.rename(self._aside / name)

    def _perform(self, stage: Stage, env: dict[str, str], where: str) -> tuple[dict[str, str], str]:
        """Every step; the variables and the folder that the stage ends with."""
        arguments: dict[str, str] = {}
        for step in stage.instructions:
            known = env | arguments
            if step.word == "ARG":
                arguments |= step.pairs
            elif step.word == "ENV":
                env |= {name: self.here(_expanded(value, known)) for name, value in step.pairs.items()}
            elif step.word == "WORKDIR":
                where = step.text
                self._inside(where).mkdir(parents=True, exist_ok=True)
            elif step.word == "COPY":
                self._copy(step, where)
            elif step.word == "RUN":
                self._hand_over()
                own = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self._wheels), "PIP_CONFIG_FILE": os.devnull}
                _run(["/bin/sh", "-c", self.here(step.text)], {**known, **own}, self._inside(where), self._account)
        return env, where

    def _inside(self, *parts: str) -> Path:
        """A path of the stage: a later absolute part replaces what is before it."""
        return self.root / PurePosixPath("/", *parts).relative_to("/")

    def _copy(self, step: Instruction, where: str) -> None:
        assert step.flags.keys() <= {"from", "chmod"}
        *sources, last = step.text.split()
        target = self._inside(where, last)
        for source in sources:
            if "from" in step.flags:
                _link(self._aside / step.flags["from"] / source.lstrip("/"), target)
                continue
            files = [path for path in context(self._repository, self._ignored) if path.is_relative_to(source)]
            if not files:
                raise BuildError(f"COPY {source}: the context has no such file; does .dockerignore let it in?")
            for file in files:
                name = file.name if last.endswith("/") and file == Path(source) else file.relative_to(source)
                into = target / name
                into.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self._repository / file, into)
                into.chmod(int(step.flags.get("chmod", "644"), 8))

    def _take(self, name: str) -> None:
        self._clear()
        _link(self._aside / name, self.root)

    def _clear(self) -> None:
        if self.root.exists():
            remove(self.root)
        self.root.mkdir()

    def _hand_over(self) -> None:
        if self._account is not None:
            for path in (self.root, *self.root.rglob("*")):
                os.chown(path, self._account, self._account, follow_symlinks=False)


class Image:
    """A target that was built, and how its processes are started: as its user, with its variables and no others."""

    def __init__(self, build: Build, target: str) -> None:
        self.root = build.root
        self.variables = {**build.env_of(target), "HOME": "/"}
        self.entrypoint = build.inherited(target, "ENTRYPOINT").argv
        self.command = build.inherited(target, "CMD").argv
        self.health = [build.here(word) for word in build.inherited(target, "HEALTHCHECK").argv]
        self._user = build.inherited(target, "USER").text

    def argv(self, words: Sequence[str], *, writes: bool = False) -> list[str]:
        """A command as the container's user: without capabilities and, unless it `writes`, unable to fill any file."""
        confined = ["setpriv", "--no-new-privs"]
        if os.geteuid() == 0:
            user, group = self._user.split(":")
            confined += ["--reuid", user, "--regid", group, "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]
        return [*confined, *([] if writes else ["prlimit", "--fsize=0", "--"]), *words]

    def run(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Such a command to its end."""
        return subprocess.run(
            self.argv(words),
            env={**self.variables, **more},
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )


class Container(Process):
    """A process of an image: its entry point with its own command, or another."""

    def __init__(self, image: Image, variables: Mapping[str, str], *command: str, writes: bool = False) -> None:
        super().__init__(variables, *(command or image.command))
        self._image = image
        self._writes = writes

    async def __aenter__(self) -> Self:
        self.process = await asyncio.create_subprocess_exec(
            *self._image.argv([*self._image.entrypoint, *self._command], writes=self._writes),
            env={**self._image.variables, **self._variables},
            cwd="/",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=1 << 22,
        )
        self._reading = [asyncio.create_task(self._read_log()), asyncio.create_task(self._read_errors())]
        self.errors = []
        return self


def remove(tree: Path) -> None:
    """A tree that may be read-only."""
    for folder, _, _ in os.walk(tree):
        Path(folder).chmod(0o755)
    shutil.rmtree(tree)


def _python_of_this_machine(prefix: Path) -> None:
    """A copy of the Python that the tests run on, without its packages but with its installers, as base images come."""
    name = f"python3.{sys.version_info.minor}"
    library = Path(os.__file__).parent
    shutil.copytree(library, prefix / "lib" / name, symlinks=True, ignore=shutil.ignore_patterns(*OUTSIDE))
    for shared in Path(str(sysconfig.get_config_var("LIBDIR"))).glob("libpython3*.so*"):
        shutil.copy(shared, prefix / "lib", follow_symlinks=False)
    (prefix / "bin").mkdir()
    shutil.copy(Path(sys.executable).resolve(), prefix / "bin" / name)
    for link in ("python", "python3"):
        (prefix / "bin" / link).symlink_to(name)
    ask = [str(prefix / "bin" / name), "-Ic", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.run(ask, check=True, capture_output=True, text=True, cwd="/").stdout.strip())
    assert packages.is_relative_to(prefix), f"the copy of Python takes its packages from {packages}"
    for installer in INSTALLERS:
        try:
            files = importlib.metadata.files(installer) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # from Python 3.12 on there is no setuptools
        for file in files:
            here = Path(str(file.locate()))
            if ".." not in file.parts and here.exists():
                (packages / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(here, packages / file)
    program = prefix / "bin" / "pip"
    program.write_text(
        f"#!{prefix}/bin/python\nimport sys\nfrom pip._internal.cli.main import main\nsys.exit(main())\n"
    )
    program.chmod(0o755)


def _link(tree: Path, to: Path) -> None:
    """A copy that shares the files: what runs in the stages replaces files, and never writes into one."""
    shutil.copytree(tree, to, symlinks=True, dirs_exist_ok=True, copy_function=os.link)


def _everybody_may_read(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _expanded(value: str, known: Mapping[str, str]) -> str:
    return re.sub(r"\$\{?(\w+)\}?", lambda found: known[found[1]], value)


def _run(argv: Sequence[str], env: Mapping[str, str], cwd: Path | None = None, account: int | None = None) -> None:
    done = subprocess.run(
        argv,
        env=env,
        cwd=cwd,
        user=account,
        group=account,
        extra_groups=[] if account is not None else None,
        umask=0o022,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    if done.returncode != 0:
        raise BuildError(f"`{' '.join(argv)}` failed; it said:\n{done.stdout[-2000:]}")
