"""The errors a user can meet, and the exit code each one means.

    RoadworthyError (4: a fault of the tool)
    ├── UndecidedError (3: nothing can be said, since nothing came)
    ├── ForbiddenTargetError     an address or URL that outgoing calls may not reach
    └── UsageError (2: wrong usage or configuration)
        ├── ConfigError      a setting, flag, file or secret key that cannot be used as it is
        └── RecordingError   a recording that cannot be read

Every message says what was expected, what came, and what to do.
"""

from __future__ import annotations


class RoadworthyError(Exception):
    """Base of all errors shown to a user without a traceback."""

    exit_code = 4


class UndecidedError(RoadworthyError):
    """The API could not be reached, or did not let us in, before anything could be asked."""

    exit_code = 3


class ForbiddenTargetError(RoadworthyError):
    """A URL, or an address its name leads to, that outgoing calls on behalf of others may not reach."""


class UsageError(RoadworthyError):
    """The command or its configuration cannot be carried out as given."""

    exit_code = 2


class ConfigError(UsageError):
    """A setting, flag or file is missing, malformed or contradictory."""


class RecordingError(UsageError):
    """A recording is not one, is damaged, or comes from a newer roadworthy."""
