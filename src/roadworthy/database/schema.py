"""What all houses' tables share: one collection with one naming rule for constraints."""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData(
    # Named constraints can be dropped again, on both databases.
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

JsonColumn = sa.JSON(none_as_null=True)
"""A JSON value; None is SQL's NULL."""
