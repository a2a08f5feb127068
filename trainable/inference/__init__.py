"""What trained networks say of clips, and what that is worth."""
