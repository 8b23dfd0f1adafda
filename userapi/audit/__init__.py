"""Who did what: rows written in the transaction of the change, never changed afterwards."""
