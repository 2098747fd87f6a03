"""What holds for a whole process: its settings, signals, locks and peers."""
