"""What all other parts use and that knows none of them."""
