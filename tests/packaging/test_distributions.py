"""The sdist and the wheel hold all that an installation needs; no source lies beside it."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from wiresum.common.version import package_version

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("p4", "softswitch", "controller", "host_agent", "measure", "testbed", "common", "cli")
PACKAGES = tuple(f"{folder}/" for folder in FOLDERS)
BUILT = ("build/x.txt", ".venv/y.txt", "softswitch/_softswitch.so", "out/demo.json")
BUILD = (
    "import sys; from scikit_build_core.build import build_sdist; print(build_sdist(sys.argv[1]))"
)
ALL_REDUCE = """
import torch
import torch.distributed as dist

dist.init_process_group("wiresum")
x = torch.arange(5000.0)
dist.all_reduce(x)
assert torch.equal(x, 2 * torch.arange(5000.0)), x
print("rank", dist.get_rank(), "of", dist.get_world_size(), "has the sum")
dist.destroy_process_group()
"""


def tracked() -> set[str]:
    """The files of the project that git knows."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("this is no git checkout: nothing says which files belong to the sdist")
    return {name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()}


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made of a copy: to walk through this checkout's environments takes long."""
    folder = tmp_path_factory.mktemp("sdist")
    for name in tracked():
        copy = folder / "source" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((ROOT / name).read_bytes())
    for built in BUILT:
        (folder / "source" / built).parent.mkdir(exist_ok=True)
        (folder / "source" / built).touch()
    run = subprocess.run(
        [sys.executable, "-c", BUILD, str(folder)],
        cwd=folder / "source", capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return folder / run.stdout.split()[-1]


def test_the_sdist_holds_every_file_of_the_packages_and_nothing_that_was_built(
    sdist: Path,
) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert "pyproject.toml" in names
    assert {n for n in tracked() if n.startswith((*PACKAGES, "CMakeLists"))} - names == set()
    assert names & set(BUILT) == set()


@pytest.mark.slow
def test_a_wheel_made_of_the_sdist_trains_where_there_is_no_source(
    sdist: Path, tmp_path: Path
) -> None:
    """Compiles all of wiresum: minutes."""
    wheels = tmp_path / "wheels"
    tools = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    made = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "-q"),
            *("--no-deps", "--no-index", "--no-build-isolation", "-w", str(wheels), str(sdist)),
        ],
        cwd=tmp_path, env=tools, capture_output=True, text=True, timeout=3000,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    (wheel,) = wheels.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for needed in (
        "wiresum/p4/compiled/wiresum_64.json",
        "wiresum/p4/compiled/wiresum_256.p4info.txtpb",
        "wiresum/softswitch/runtime/table.hpp",
        "wiresum/softswitch/programs/libruntime.a",
        "wiresum/common/installed.py",
    ):
        assert needed in names
    assert len([n for n in names if n.startswith("wiresum/softswitch/programs/")]) == 3

    here = environment(tmp_path / "venv", wheel)
    assert (
        here("wiresum", "--version", PATH="/nonexistent").strip() == f"wiresum {package_version()}"
    )
    script = tmp_path / "train.py"
    script.write_text(ALL_REDUCE)
    # No compiler: the switch's own programs are in the wheel. --carrier switch: no way around it.
    torchrun = ["torchrun", "--standalone", "--nproc-per-node", "2", str(script)]
    said = here("wiresum", "run", "--carrier", "switch", "--", *torchrun, CXX="/nonexistent")
    assert "rank 0 of 2 has the sum" in said
    assert "rank 1 of 2 has the sum" in said
    # A program of the user's own is compiled against the headers in the wheel.
    own = ROOT / "tests" / "softswitch" / "programs" / "parsing.json"
    switch = (
        f"from wiresum.softswitch import Switch; Switch({str(own)!r}).inject(1, b'\\x40\\0\\0\\0')"
    )
    here("python", "-c", switch, CXXFLAGS="-O0", XDG_CACHE_HOME=str(tmp_path / "cache"))


def environment(folder: Path, wheel: Path):  # type: ignore[no-untyped-def]
    """A new environment with that wheel, and what it depends on from this one; a runner in it."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    # This environment's packages but for wiresum, whose installation here leads to the source.
    dependencies = folder / "dependencies"
    dependencies.mkdir()
    for package in Path(sysconfig.get_path("purelib")).iterdir():
        if "wiresum" not in package.name and package.suffix != ".pth":
            (dependencies / package.name).symlink_to(package)
    (site / "dependencies.pth").write_text(f"{dependencies}\n")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")),
            *("--disable-pip-version-check", "install", "-q", "--no-deps", "--no-index"),
            str(wheel),
        ],
        check=True, timeout=300,
    )  # fmt: skip
    torchrun = folder / "bin" / "torchrun"
    torchrun.write_text(
        f"#!{folder}/bin/python\nfrom torch.distributed.run import main\nraise SystemExit(main())\n"
    )
    torchrun.chmod(0o755)

    def run(program: str, *arguments: str, **variables: str) -> str:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("WIRESUM_", "PYTHON"))}
        path = f"{folder}/bin:/usr/bin:/bin"
        done = subprocess.run(
            [str(folder / "bin" / program), *arguments],
            cwd=folder, env={**kept, "PATH": path, "OMP_NUM_THREADS": "1", **variables},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run
