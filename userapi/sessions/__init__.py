"""Sessions: who is signed in, since when, and until when."""
