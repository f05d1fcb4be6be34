"""What people and scripts use."""
