"""Accounts: registration, creation, search, editing, suspension, deletion, import and export."""
