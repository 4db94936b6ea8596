"""Legal variations: unusual answers that no client minds, so nothing may turn red."""

from __future__ import annotations

from roadworthy.sandbox.mutation import variation
from roadworthy.sandbox.turn import Kind, Stage, Turn


@variation("null_system_fingerprint", at=Stage.PAYLOAD, on={Kind.CHAT})
def null_system_fingerprint(turn: Turn) -> None:
    """`system_fingerprint` is null: the JavaScript client allows undefined, null and string."""
    turn.payload["system_fingerprint"] = None
