"""The commands that change a workspace: one function each, run in a transaction that ends in a commit."""
