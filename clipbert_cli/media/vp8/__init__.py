"""VP8 as far as it takes to tell damaged packets from whole ones."""
