"""Carriers: what moves a WebSocket's bytes."""
