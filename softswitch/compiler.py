"""From p4c's BMv2 JSON to a shared object that :class:`wiresum.softswitch.Switch` can load.

The programs of this repository were compiled when wiresum was built; any other is translated and
compiled with the C++ compiler on PATH, once, and kept in the user's cache. ``$CXX`` chooses the
compiler, ``$CXXFLAGS`` adds to its flags.
"""

import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from wiresum.softswitch import lines

from . import _softswitch
from .errors import CompileFailed, NoCompiler, ProgramInvalid
from .program_cache import ProgramCache, cache_dir
from .translate.abi import RUNTIME, abi_hash
from .translate.translator import json_digest, translate

COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-std=c++20", "-O3", "-march=native", "-DWIRESUM_NATIVE", "-fPIC", "-shared",
         "-fvisibility=hidden")  # fmt: skip
TIMEOUT_S = 600
BUILT = Path(_softswitch.__file__).parent / "programs"
"""What was compiled when wiresum was built: its own programs, and ``libruntime.a``, a part of every
program."""


def load_program(program: Path | str | bytes) -> Path:
    """Returns the compiled library of a BMv2 JSON, making it if it is not there yet.

    ``program`` is the JSON's path, or its content as bytes. Raises :class:`ProgramInvalid`,
    :class:`UnsupportedConstruct`, :class:`NoCompiler` or :class:`CompileFailed`.
    """
    if isinstance(program, bytes):
        text = program
    else:
        try:
            text = Path(program).read_bytes()
        except OSError as e:
            raise ProgramInvalid(
                lines.CANNOT_READ_PROGRAM.of(program=program, why=e.strerror)
            ) from e
    built_in = BUILT / f"{json_digest(text)}.so"
    if built_in.exists():
        return built_in
    return _compiled(text)


def find_compiler() -> list[str]:
    """The C++ compiler's command line: ``$CXX``, else the first of c++, g++, clang++; the flags.

    Raises :class:`NoCompiler`.
    """
    wanted = shlex.split(os.environ.get("CXX", ""))
    extra = shlex.split(os.environ.get("CXXFLAGS", ""))
    if wanted:
        found = shutil.which(wanted[0])
        if found is None:
            raise NoCompiler(lines.COMPILER_MISSING.of(compiler=wanted[0]))
        return [found, *wanted[1:], *FLAGS, *extra]
    for name in COMPILERS:
        found = shutil.which(name)
        if found is not None:
            return [found, *FLAGS, *extra]
    raise NoCompiler(lines.NO_COMPILER.of())


def _compiled(text: bytes) -> Path:
    translation = translate(text)
    compiler = find_compiler()
    key = _cache_key(translation.cpp, compiler)
    folder = cache_dir()
    try:
        cache = ProgramCache(folder)
        if not cache.has(key):
            with cache.only_one(key):
                if not cache.has(key):  # another process may have made it meanwhile
                    _compile(compiler, translation.cpp, cache, key)
    except OSError as e:
        raise CompileFailed(lines.CACHE_NOT_WRITTEN.of(folder=folder, why=e.strerror)) from e
    return cache.library(key)


def _cache_key(cpp: str, compiler: list[str]) -> str:
    """Everything that the library depends on: C++, headers, compiler, flags, this machine's CPU."""
    digest = hashlib.sha256()
    for part in (cpp, abi_hash(), *compiler, _compiler_version(compiler), _cpu()):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:40]


def _compiler_version(compiler: list[str]) -> str:
    try:
        run = subprocess.run(
            [compiler[0], "--version"], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.SubprocessError) as e:
        raise NoCompiler(lines.COMPILER_FAILS.of(compiler=compiler[0], why=e)) from e
    return run.stdout


def _cpu() -> str:
    """The CPU's features: ``-march=native`` depends on them, and a cache may be shared."""
    try:
        facts = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return os.uname().machine
    return next((line for line in facts if line.startswith(("flags", "Features"))), "")


def _compile(compiler: list[str], cpp: str, cache: ProgramCache, key: str) -> None:
    library = cache.library(key)
    source = library.with_suffix(".cpp")
    source.write_text(cpp)
    with tempfile.NamedTemporaryFile(dir=cache.folder, suffix=".tmp", delete=False) as made:
        target = Path(made.name)
    command = [
        *compiler, f'-DWIRESUM_ABI="{abi_hash()}"', f"-I{RUNTIME}", str(source),
        str(BUILT / "libruntime.a"), "-o", str(target),
    ]  # fmt: skip
    try:
        try:
            run = subprocess.run(
                command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise CompileFailed(
                lines.COMPILER_TOO_SLOW.of(compiler=compiler[0], source=source, limit_s=TIMEOUT_S)
            ) from None
        if run.returncode != 0:
            log = library.with_suffix(".log")
            log.write_text(shlex.join(command) + "\n" + run.stderr)
            said = run.stderr.splitlines()
            first = next((line for line in said if "error" in line), (said or ["no message"])[-1])
            raise CompileFailed(
                lines.CANNOT_COMPILE.of(compiler=compiler[0], first=first.strip(), log=log)
            )
        cache.put(key, target)
    finally:
        target.unlink(missing_ok=True)
