"""What a secret proves that the database does not hold: signatures, and links that say all by themselves."""
