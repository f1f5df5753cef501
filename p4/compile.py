"""Compiles the switch program with p4c for every lane count, or checks what is committed.

``python p4/compile.py`` needs ``p4c-bm2-ss`` on PATH and rewrites ``compiled/``;
``--check`` compares the sources' hash with the one that ``compiled/`` was made from.
"""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
COMPILED = HERE / "compiled"
MANIFEST = COMPILED / "manifest.json"
LANE_COUNTS = (64, 256)
COMPILER = "p4c-bm2-ss"


def source_hash() -> str:
    """SHA-256 over the names and texts of all P4 sources."""
    digest = hashlib.sha256()
    for path in sorted(HERE.glob("*.p4")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def compile_program(lanes: int, into: Path) -> tuple[Path, Path]:
    """Compile for ``lanes`` lanes; returns the JSON and the P4Info text file in ``into``.

    The JSON is p4c's, without white space and without the path that it ran with. Raises
    ``subprocess.CalledProcessError`` where p4c refuses the program.
    """
    json_file = into / f"wiresum_{lanes}.json"
    p4info_file = into / f"wiresum_{lanes}.p4info.txtpb"
    subprocess.run(
        [
            COMPILER, "--std", "p4-16", f"-DLANES={lanes}", "--Wdisable=unused",
            "-o", str(json_file), "--p4runtime-files", str(p4info_file), "wiresum.p4",
        ],
        cwd=HERE, check=True, timeout=600,
    )  # fmt: skip
    program = json.loads(json_file.read_text())
    program["program"] = "wiresum.p4"
    program["__meta__"].pop("version", None)
    json_file.write_text(json.dumps(program, separators=(",", ":")) + "\n")
    return json_file, p4info_file


def main(arguments: list[str]) -> int:
    """Entry point; returns the exit status."""
    wanted = source_hash()
    if "--check" in arguments:
        made_from = json.loads(MANIFEST.read_text())["sources"] if MANIFEST.exists() else None
        if made_from != wanted:
            print("p4/compiled was not made from the present P4 sources: run make p4")
            return 1
        return 0
    if shutil.which(COMPILER) is None:
        print(f"{COMPILER} is not on PATH: install p4c (https://p4.org) to remake p4/compiled")
        return 1
    with tempfile.TemporaryDirectory() as scratch:
        made = [file for lanes in LANE_COUNTS for file in compile_program(lanes, Path(scratch))]
        COMPILED.mkdir(exist_ok=True)
        for file in made:
            shutil.copyfile(file, COMPILED / file.name)
    banner = subprocess.run(
        [COMPILER, "--version"], check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=60,
    ).stdout  # fmt: skip
    version = re.search(r"Version ([\d.]+)", banner)
    MANIFEST.write_text(
        json.dumps({"sources": wanted, "p4c": version and version.group(1)}, indent=2) + "\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
