"""The history store: every event of every user, once."""
