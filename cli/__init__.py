"""The command ``wiresum``: mounts the commands of every package. It imports all packages; none
imports it."""
