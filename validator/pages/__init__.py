"""The public status page: what is live, since when, how fast; and why what fails does. Read-only."""

from __future__ import annotations

from roadworthy.validator.pages.routes import router

__all__ = ["router"]
