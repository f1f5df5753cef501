"""DDP hooks that send fewer bytes: the most important blocks, in few bits, with error feedback."""
