"""Compiles the suite's programs with p4c, or checks the committed files.

``python tests/conformance/programs/compile.py`` needs ``p4c-bm2-ss`` on PATH and rewrites the
JSONs, the P4Infos and the manifest; ``--check`` compares the sources' hashes with the manifest.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
MANIFEST = HERE / "manifest.json"
COMMON = HERE / "common.p4"
COMPILER = "p4c-bm2-ss"


def names() -> list[str]:
    """The programs, by name."""
    return sorted(path.stem for path in HERE.glob("*.p4") if path != COMMON)


def source_hashes() -> dict[str, str]:
    """SHA-256 of every program's source and of its includes."""
    common = COMMON.read_bytes()
    return {
        name: hashlib.sha256(common + (HERE / f"{name}.p4").read_bytes()).hexdigest()
        for name in names()
    }


def compile_program(name: str, into: Path) -> tuple[Path, Path]:
    """Compile one program; returns the JSON and the P4Info text file in ``into``."""
    target, info = into / f"{name}.json", into / f"{name}.p4info.txtpb"
    subprocess.run(
        [
            COMPILER, "--std", "p4-16", "--Wdisable", "-o", str(target),
            "--p4runtime-files", str(info), f"{name}.p4",
        ],
        cwd=HERE, check=True, timeout=600,
    )  # fmt: skip
    program = json.loads(target.read_text())
    program["program"] = f"{name}.p4"
    program["__meta__"].pop("version", None)
    target.write_text(json.dumps(program, separators=(",", ":")) + "\n")
    return target, info


def main(arguments: list[str]) -> int:
    """Entry point; returns the exit status."""
    if "--check" in arguments:
        if json.loads(MANIFEST.read_text()) == source_hashes():
            return 0
        print("what is compiled was not made from the present sources: run compile.py")
        return 1
    for name in names():
        compile_program(name, HERE)
    MANIFEST.write_text(json.dumps(source_hashes(), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
