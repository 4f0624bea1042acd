"""What is deployed, as a CycloneDX SBOM; and whether the packages of the lock files are known to be vulnerable.

Exit codes: 0 every package was looked up and none is known to be vulnerable; 1 one is, or a tool failed; 3 none is as
far as was found out, but the vulnerability service could not be asked about all of them (pip-audit calls that "no known
vulnerabilities found" and ends with 0).
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deploy.local.errors import StackError

REPOSITORY = Path(__file__).resolve().parents[2]
LOCKS = REPOSITORY / "deploy" / "lock"
BIN = REPOSITORY / ".venv" / "bin"
DEPLOYED = "image.txt"
AUDITED = (DEPLOYED, "dev.txt")
CLEAN, FAILED, UNASKED = 0, 1, 3
LIMIT_S = 300
NETWORK = re.compile(r"ConnectionError|ServiceError|Timeout|Max retries|HTTPError|no answer within")


@dataclass(frozen=True)
class Verdict:
    """Of one lock file: how many packages were looked up; `name version: id (mended in ...)`; names that were not."""

    asked: int
    vulnerable: tuple[str, ...] = ()
    unasked: tuple[str, ...] = ()
    reason: str = ""  # why the first of them was not

    @property
    def code(self) -> int:
        """The exit code that it asks for."""
        if self.vulnerable:
            return FAILED
        return UNASKED if self.unasked or not self.asked else CLEAN


def judge(output: str) -> Verdict | None:
    """What pip-audit's JSON says; None when it is none: it failed before it had asked for anything."""
    try:
        found = json.loads(output)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return None
    skipped = [item for item in found if "skip_reason" in item]
    vulnerable = [
        f"{item['name']} {item['version']}: {fault['id']} ({_mended(fault['fix_versions'])})"
        for item in found
        for fault in item.get("vulns", ())
    ]
    return Verdict(
        len(found) - len(skipped),
        tuple(vulnerable),
        tuple(item["name"] for item in skipped),
        skipped[0]["skip_reason"] if skipped else "",
    )


def unreached(said: str) -> Verdict | None:
    """Of a pip-audit that ended without an answer: none was to be had of the service; None when it failed otherwise."""
    last = (said.strip().splitlines() or [""])[-1][:300]
    return Verdict(0, (), ("all",), last) if NETWORK.search(said) else None


def _mended(versions: list[str]) -> str:
    return f"mended in {', '.join(versions)}" if versions else "not mended yet"


def told(lock: str, verdict: Verdict) -> str:
    """For people; never says that what was not looked up is clean."""
    lines = [f"{lock}: VULNERABLE: {each}" for each in verdict.vulnerable]
    if verdict.unasked:
        count = f"{len(verdict.unasked)} of {verdict.asked + len(verdict.unasked)} packages"
        lines.append(f"{lock}: NOT AUDITED: {count}; the service could not be asked ({verdict.reason}).")
    if verdict.asked:
        lines.append(f"{lock}: {verdict.asked} packages looked up, {len(verdict.vulnerable)} known vulnerabilities.")
    elif not verdict.unasked:
        lines.append(f"{lock}: NOT AUDITED: no packages were found in it.")
    return "\n".join(lines)


def audit(lock: str) -> subprocess.Popen[str]:
    """pip-audit on one lock file, as it stands: nothing is resolved, nothing installed."""
    argv = [str(BIN / "pip-audit"), "-r", str(LOCKS / lock), "--disable-pip", "--require-hashes", "-f", "json"]
    return subprocess.Popen(
        [*argv, "--progress-spinner", "off"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def write_sbom(path: Path) -> int:
    """The components of what is deployed, validated; the same bytes for the same lock file. How many there are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    argv = [str(BIN / "cyclonedx-py"), "requirements", str(LOCKS / DEPLOYED)]
    argv += ["--pyproject", str(REPOSITORY / "pyproject.toml"), "-o", str(path)]
    argv += ["--of", "JSON", "--sv", "1.6", "--output-reproducible", "--validate"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=LIMIT_S)
    if done.returncode != 0:
        raise StackError(f"cyclonedx-py wrote no SBOM: {done.stderr.strip()[-500:]}")
    return len(json.loads(path.read_text("utf-8"))["components"])


def main() -> int:
    parser = argparse.ArgumentParser(prog="audit.py", description=__doc__)
    parser.add_argument("--sbom", type=Path, default=REPOSITORY / ".local" / "sbom.json", help="where to write it")
    options = parser.parse_args()
    audits = {lock: audit(lock) for lock in AUDITED}
    codes = []
    try:
        print(f"{options.sbom}: {write_sbom(options.sbom)} components of what is deployed (CycloneDX 1.6).")
    except (StackError, OSError, subprocess.TimeoutExpired) as error:
        print(f"audit: {error}", file=sys.stderr)
        codes.append(FAILED)
    for lock, running in audits.items():
        try:
            output, said = running.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            running.kill()
            output, said = "", f"no answer within {LIMIT_S} s"
        verdict = judge(output) or unreached(said)
        if verdict is None:
            print(f"audit: pip-audit failed on {lock}:\n{said.strip()[-1000:]}", file=sys.stderr)
            codes.append(FAILED)
            continue
        print(told(lock, verdict))
        codes.append(verdict.code)
    return FAILED if FAILED in codes else max(codes)


if __name__ == "__main__":
    sys.exit(main())
