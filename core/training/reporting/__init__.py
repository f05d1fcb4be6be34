"""What a training leaves to be read: report, model card, curves, estimates."""
