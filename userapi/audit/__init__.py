"""The audit log: rows are written in the transaction of the change and never changed."""
