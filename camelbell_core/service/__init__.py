"""Asking an OpenAI-compatible service for many replies: paced, cached, counted, and each paid for once."""
