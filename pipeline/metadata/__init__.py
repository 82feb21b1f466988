"""The metadata store on SQLite or PostgreSQL."""
