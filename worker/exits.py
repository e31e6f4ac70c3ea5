"""Owns the two ways a command ends badly; the message is the one line that is printed."""


class Failed(Exception):  # noqa: N818 - named after what it says
    """The thing asked for failed: exit status 1."""


class WrongUsage(Exception):  # noqa: N818 - named after what it says
    """The command was called wrongly: exit status 2."""
