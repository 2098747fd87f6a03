"""Raw logs: files of any kind to events with dense ids."""
