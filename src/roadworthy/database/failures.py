"""What a database's refusal means to people: one sentence, without a password, in place of a driver's traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from roadworthy.errors import RoadworthyError


class DatabaseUnavailableError(RoadworthyError):
    """The database did not answer, refused the connection, or stayed locked. What was being done was not done."""

    exit_code = 3


class DatabaseUnusableError(DatabaseUnavailableError):
    """The same, and waiting will not help: a wrong password, a file that is no database, a missing right."""

    exit_code = 2


class OutcomeUnknownError(DatabaseUnavailableError):
    """The database broke off while a change was being committed: it was done, or it was not."""


_REMEDIES = {  # part of a driver's message -> what to do; these do not pass by waiting
    "file is not a database": "it is another kind of file; name a database of roadworthy, or a new file",
    "unable to open database file": "it must be a file in a folder, and both must be ours to read and write",
    "readonly database": "the file and its folder must be ours to write",
    "disk image is malformed": "the file is damaged; restore a backup into a new database",
    "password authentication failed": "give the right user and password in the URL",
    "no password supplied": "give the password in the URL",
    "pg_hba.conf": "the server does not let this user in from here",
    "permission denied": "the user needs the right to make and use tables there",
    "no schema has been selected": "the user needs the right to make and use tables there",
    "must be owner": "use the user that made the tables",
    "already exists": "others keep tables there; use a database of roadworthy's own",
}


def shown_url(url: URL) -> str:
    """The URL for people and logs: without its password."""
    shown = url.set(drivername=url.drivername.partition("+")[0]).difference_update_query(["password", "sslpassword"])
    return shown.render_as_string(hide_password=True)


@contextmanager
def told(url: URL) -> Iterator[None]:
    """Turns what the driver raises into `DatabaseUnavailableError`.

    What the statement itself did wrong, a broken constraint say, passes as it is.
    """
    try:
        yield
    except PoolTimeoutError:
        raise DatabaseUnavailableError(f"every connection to {shown_url(url)} is in use; try again") from None
    except DBAPIError as error:
        reason = _reason(error)
        for part, remedy in _REMEDIES.items():
            if part in reason:
                raise DatabaseUnusableError(f"{shown_url(url)} cannot be used: {reason}; {remedy}") from error
        if not (error.connection_invalidated or isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError)):
            raise
        raise DatabaseUnavailableError(f"the database {shown_url(url)} did not serve us: {reason}") from error


@contextmanager
def told_all(url: URL) -> Iterator[None]:
    """The same, where every statement is our own: what one did wrong means that the tables are not ours.

    For work in one transaction that nothing remains of, such as a migration. Raises `DatabaseUnavailableError`.
    """
    try:
        with told(url):
            yield
    except DBAPIError as error:
        raise DatabaseUnusableError(
            f"{shown_url(url)} refused, and is as it was: {_reason(error)}; use a database of roadworthy's own"
        ) from error


def _reason(error: DBAPIError) -> str:
    """The one line of the driver's message that says most: the server's own, else the first."""
    lines = [line.strip() for line in str(error.orig).splitlines() if line.strip()]
    return next((line for line in lines if "FATAL:" in line), lines[0] if lines else type(error.orig).__name__)
