"""What every part may use: checks of plain data."""
