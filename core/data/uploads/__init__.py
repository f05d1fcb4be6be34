"""What somebody has sent: taken apart, inspected, stored."""
