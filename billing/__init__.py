"""Usage intake, cost collection, ledger and reconciliation. Nothing is built here yet."""
