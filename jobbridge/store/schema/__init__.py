"""How the tables come to be: migrations, taking over the original's tables, what holds for all tables."""
