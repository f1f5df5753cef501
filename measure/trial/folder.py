"""The folder of a trial: finished runs are kept in it, so that a trial goes on where it was."""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from wiresum.measure import lines
from wiresum.measure.trial.errors import TrialError, TrialUsageError
from wiresum.measure.trial.options import TrialOptions
from wiresum.measure.trial.outcome import FINISHED, STOPPED, Outcome

ORDER, OUTCOME = "trial.json", "outcome.json"
VERSION = 1


class Folder:
    """The folder on disk."""

    def __init__(self, options: TrialOptions, *, fresh: bool = False) -> None:
        """Open it, or make it.

        ``fresh``: forget the runs in it. Raises ``TrialUsageError`` if it holds another trial,
        ``TrialError`` if it cannot be made.
        """
        self.path = options.folder
        self._options = options
        mine = _order(options)
        try:
            before = self._read_order()
            if before is not None and fresh:
                for entry in self.path.iterdir():
                    if (entry / OUTCOME).exists() or entry.name == ORDER:
                        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
                before = None
            if before is not None and before != mine:
                changed = sorted(name for name in mine if before.get(name) != mine[name])
                raise TrialUsageError(
                    lines.OTHER_TRIAL.of(folder=self.path, what=", ".join(changed) or "version")
                )
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / ORDER).write_text(json.dumps(mine, indent=1) + "\n")
        except OSError as error:
            raise TrialError(lines.NO_FOLDER.of(folder=self.path, why=error.strerror)) from None

    def of_run(self, remedy: str, seed: int) -> Path:
        """Where a run leaves its output and its records."""
        return self.path / f"{remedy}-seed{seed}"

    def kept(self, remedy: str, seed: int) -> Outcome | None:
        """A run that need not be made again: finished, or ended early for the same target.

        None also where its file is damaged.
        """
        try:
            kept = json.loads((self.of_run(remedy, seed) / OUTCOME).read_text())
            target = kept.pop("target")
            outcome = Outcome.of_json(kept)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None
        if (outcome.remedy, outcome.seed) != (remedy, seed):
            return None
        again = outcome.how == STOPPED and target != str(self._options.target)
        return outcome if outcome.how in (FINISHED, STOPPED) and not again else None

    def keep(self, outcome: Outcome) -> None:
        """Write a run's outcome, whole or not at all."""
        path = self.of_run(outcome.remedy, outcome.seed) / OUTCOME
        new = path.with_suffix(".new")
        new.write_text(json.dumps(outcome.as_json() | {"target": str(self._options.target)}))
        new.replace(path)

    def _read_order(self) -> Mapping[str, object] | None:
        try:
            found = json.loads((self.path / ORDER).read_text())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, RecursionError):
            found = None
        return found if isinstance(found, dict) else {}


def _order(options: TrialOptions) -> dict[str, object]:
    """What must be the same for runs to be comparable."""
    return {
        "version": VERSION,
        "command": list(options.command),
        "folder": str(Path.cwd()),
        "steps": options.steps,
        "loss pattern": options.pattern,
        "controller": options.controller or "",
        "files": _files(options.command),
    }


def _files(command: Sequence[str]) -> dict[str, str]:
    """The scripts that the command names, with hashes of what is in them."""
    found = {}
    for word in command:
        path = Path(word)
        if path.suffix in (".py", ".sh", ".yaml", ".yml", ".json", ".toml") and path.is_file():
            found[word] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found
