"""The official code: found, checked, and run beside ours."""
