"""Where the old vectors live, and what finds the nearest of them."""
