"""Compiles the test programs with p4c; rewrites the JSONs, the P4Infos and the manifest."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
MANIFEST = HERE / "manifest.json"
SOURCES = sorted(HERE.glob("*.p4")) + sorted((HERE.parent / "refused").glob("*.p4"))


def source_hashes() -> dict[str, str]:
    """SHA-256 of every program's source."""
    return {p.stem: hashlib.sha256(p.read_bytes()).hexdigest() for p in SOURCES}


def main() -> int:
    """Compile all programs."""
    for source in SOURCES:
        target = source.with_suffix(".json")
        info = ["--p4runtime-files", f"{source.stem}.p4info.txtpb"] if source.parent == HERE else []
        subprocess.run(
            ["p4c-bm2-ss", "--std", "p4-16", "--Wdisable", "-o", target.name, *info, source.name],
            cwd=source.parent, check=True, timeout=600,
        )  # fmt: skip
        program = json.loads(target.read_text())
        target.write_text(json.dumps(program, separators=(",", ":")) + "\n")
    MANIFEST.write_text(json.dumps(source_hashes(), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
