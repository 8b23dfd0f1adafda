"""Service accounts, API keys, and the tokens that services receive for them."""
