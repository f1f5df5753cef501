"""What can go wrong with advice."""

from wiresum.common.errors import WiresumError


class AdviceError(WiresumError):
    """A report or a trial cannot be read, or says too little; the message is one line."""


class AdviceUsageError(AdviceError):
    """The command line does not say enough, or something that makes no sense."""

    exit_code = 2
