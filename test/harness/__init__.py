"""Everything a test, a demo or a benchmark needs round the extension: a private PostgreSQL, a Kafka
broker, seeded events. Used by `make` (python -m harness) and by the pytest fixtures."""
