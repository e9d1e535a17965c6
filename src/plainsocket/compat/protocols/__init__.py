"""What a WebSocketApplication's messages mean."""
