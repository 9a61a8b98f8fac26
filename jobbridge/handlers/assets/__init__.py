"""Import assets from files."""
