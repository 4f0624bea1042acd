"""Reads a Dockerfile and a .dockerignore: as much of their languages as ours use, and an error for anything else."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

KNOWN = {"FROM", "ARG", "ENV", "LABEL", "WORKDIR", "COPY", "RUN", "USER", "EXPOSE"}
KNOWN |= {"HEALTHCHECK", "ENTRYPOINT", "CMD"}
LARGE = {".git", ".venv", ".local", "node_modules"}  # ignored (a test says so), and not worth the walk
FLAG = re.compile(r"--([a-z-]+)(?:=(\S+))?\s+")
PAIR = re.compile(r"""([\w.]+)=("(?:[^"\\]|\\.)*"|\S*)""")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One, with its continuation lines joined; `flags` are the options in front, such as those of COPY and RUN."""

    word: str
    flags: Mapping[str, str]
    text: str

    @property
    def pairs(self) -> dict[str, str]:
        """Of ENV, LABEL and ARG: name and value."""
        return {name: value.strip('"') for name, value in PAIR.findall(self.text)}

    @property
    def argv(self) -> list[str]:
        """Of ENTRYPOINT, CMD and HEALTHCHECK: the exec form. The shell form, which swallows signals, is an error."""
        words = json.loads(self.text.removeprefix("CMD ") if self.word == "HEALTHCHECK" else self.text)
        assert isinstance(words, list)
        assert all(isinstance(word, str) for word in words)
        return words


@dataclass(slots=True)
class Stage:
    """One FROM and what follows it."""

    name: str
    base: str
    instructions: list[Instruction] = field(default_factory=list)

    def of(self, word: str) -> list[Instruction]:
        """Its instructions of one kind."""
        return [instruction for instruction in self.instructions if instruction.word == word]


def stages(text: str) -> dict[str, Stage]:
    """Every stage by its name, in order."""
    found: list[Stage] = []
    for instruction in _instructions(text):
        if instruction.word == "FROM":
            base, _, name = instruction.text.partition(" AS ")
            found.append(Stage(name, base))
        else:
            found[-1].instructions.append(instruction)
    return {stage.name: stage for stage in found}


def _instructions(text: str) -> Iterator[Instruction]:
    lines = (line.strip() for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = "\n".join(line for line in lines if line).replace("\\\n", " ")
    for line in joined.splitlines():
        word, _, rest = line.partition(" ")
        if word not in KNOWN:
            raise ValueError(f"{word} is not understood here")
        flags = {}
        while flag := FLAG.match(rest):
            flags[flag[1]] = flag[2] or ""
            rest = rest[flag.end() :]
        yield Instruction(word, flags, re.sub(r"\s+", " ", rest.strip()))


class Ignored:
    """A .dockerignore: the last pattern that matches a path, or a folder above it, decides."""

    def __init__(self, text: str) -> None:
        lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
        self._rules = [(line.startswith("!"), _pattern(line.removeprefix("!"))) for line in lines]

    def __contains__(self, path: Path) -> bool:
        names = [path, *path.parents[:-1]]
        ignored = False
        for exception, pattern in self._rules:
            if any(pattern.fullmatch(name.as_posix()) for name in names):
                ignored = not exception
        return ignored


def _pattern(glob: str) -> re.Pattern[str]:
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    tokens: Sequence[str] = re.findall(r"\*\*/|\*\*|\*|\?|\[[^]]*\]|[^*?\[]+", glob)
    return re.compile("".join(parts.get(token) or (token if token[0] == "[" else re.escape(token)) for token in tokens))


def context(root: Path, ignored: Ignored) -> Iterator[Path]:
    """The files that a builder is handed, relative to `root`."""
    for folder, names, files in os.walk(root):
        names[:] = [name for name in names if name not in LARGE]
        for name in files:
            path = (Path(folder) / name).relative_to(root)
            if path not in ignored:
                yield path
