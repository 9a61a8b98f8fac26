"""Mail: whom it goes to, and sending it without ever sending it twice."""
