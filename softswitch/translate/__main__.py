"""``python -m translate``: what the build of wiresum calls."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .abi import abi_hash
from .errors import TranslateError
from .translator import json_digest, translate


def main() -> int:
    """Translate a file, or print the hash that a file or the runtime has."""
    parser = argparse.ArgumentParser(prog="translate", description=__doc__)
    parser.add_argument("json", type=Path, nargs="?", help="the BMv2 JSON")
    parser.add_argument("-o", dest="output", type=Path, help="the C++ file")
    parser.add_argument("--digest", action="store_true", help="print the JSON's digest")
    parser.add_argument("--abi", action="store_true", help="print the runtime's ABI hash")
    args = parser.parse_args()
    if args.abi:
        print(abi_hash())
        return 0
    if args.json is None:
        parser.error("which JSON?")
    try:
        text = args.json.read_bytes()
        if args.digest:
            print(json_digest(text))
        else:
            cpp = translate(text).cpp
            if args.output is None:
                sys.stdout.write(cpp)
            else:
                args.output.write_text(cpp)
    except (OSError, TranslateError) as e:
        print(f"translate: {args.json}: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
