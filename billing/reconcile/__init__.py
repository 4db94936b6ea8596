"""Reconciliation: what was settled, against what it should have cost, against what the provider invoiced."""
