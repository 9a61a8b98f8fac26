"""What the API gives: rows as JSON, instants, answers and errors."""
