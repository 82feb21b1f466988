"""Pusher: publishes a blessed Model as a new version in the serving folder."""
