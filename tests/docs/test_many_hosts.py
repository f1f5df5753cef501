"""The launcher understands the commands of the page on many hosts, and of the README's block."""

import pytest

from support.command_lines import shell_lines
from wiresum.host_agent.launcher.rendezvous import rendezvous


@pytest.mark.parametrize("page", ["docs/many-hosts.md", "README.md"])
def test_the_page_has_every_command_and_the_launcher_finds_the_rendezvous(page: str) -> None:
    found = [line.words[1:] for line in shell_lines() if line.page == page]
    assert {words[:2] for words in found} >= {
        ("switch", "serve"), ("controller", "serve"), ("switch", "add"),
    }  # fmt: skip
    (run,) = [words for words in found if words[:1] == ("run",) and "--node-rank" in words]
    meeting = rendezvous(list(run[run.index("--") + 1 :]), {})
    assert meeting is not None
    assert meeting.place.endswith(":29500")
