"""What goes to and from Temporal: the contract (standard library only), messages, the client."""
