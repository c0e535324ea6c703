"""What the operating system gives: threads, memory, files."""
