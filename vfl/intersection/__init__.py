"""What several sets have in common: hidden values, said in pieces round a ring, and where they meet."""
