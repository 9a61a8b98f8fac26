"""Finding out what is wrong: of the whole system (`checks`), of one job (`explain`)."""
