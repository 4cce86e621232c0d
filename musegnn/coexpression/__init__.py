"""Co-expression graphs from raw counts: selection, residuals, CS-CORE, edge rules."""
