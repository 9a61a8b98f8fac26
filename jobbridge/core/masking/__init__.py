"""What is kept from people's eyes: values under secret names, and secrets in texts."""
