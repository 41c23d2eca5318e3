"""What real people's answers come to, and how many an image are worth their money."""
