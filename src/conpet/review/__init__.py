"""The review queue: answers that people look at, their verdicts, and what follows from them."""
