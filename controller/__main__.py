"""``python -m wiresum.controller``."""

from wiresum.controller.cli import main

if __name__ == "__main__":
    main()
