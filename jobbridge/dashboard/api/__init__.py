"""The API, version 1: the same rules and guard as the pages, answers as JSON, described by OpenAPI."""
