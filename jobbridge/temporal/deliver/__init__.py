"""How a job reaches Temporal: started, stopped, and delivered later by the relay."""
