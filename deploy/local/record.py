"""What a home folder remembers between commands: the ports, and where Postgres keeps its data."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from deploy.local.errors import StackError

FILE = "state.json"


@dataclasses.dataclass
class Record:
    home: str
    ports: dict[str, int] = dataclasses.field(default_factory=dict)
    postgres_folder: str | None = None

    @classmethod
    def load(cls, home: Path) -> Record:
        """Read it; a folder never used before has an empty one."""
        try:
            record = cls(**json.loads((home / FILE).read_text()))
        except FileNotFoundError:
            return cls(str(home))
        except (ValueError, TypeError) as error:
            raise StackError(f"{home / FILE} is not readable ({error}): delete the folder {home}") from error
        if record.home != str(home) and (Path(record.home) / FILE).exists():
            # Its pid files and ports are those of the original: `down` here would stop the servers over there.
            raise StackError(f"{home} is a copy of {record.home}, whose servers it names: delete the folder {home}")
        record.home = str(home)
        return record

    def save(self) -> None:
        home = Path(self.home)
        written = home / f"{FILE}.new"
        written.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")
        written.replace(home / FILE)
