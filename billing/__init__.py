"""Billing: served requests taken in, costed once by their providers, settled in a ledger, and reconciled."""
