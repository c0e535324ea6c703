"""What the APIs that follow other products share: reading, translating, answering."""
