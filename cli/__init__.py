"""The command ``wiresum``: mounts the commands of every package. Knows all, is known by none."""
