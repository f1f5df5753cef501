"""``python -m wiresum.controller``."""

from wiresum.controller.commands.cli import main

if __name__ == "__main__":
    main()
