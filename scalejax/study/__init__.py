"""Studies: from a plan through training and fits to a ledger of scored forecasts."""
