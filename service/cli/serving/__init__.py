"""Parts of the command ``serve``: where it listens, how it ends, and what its memory shows."""
