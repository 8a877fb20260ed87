"""The pages, one module each: `router`, and, where it has them, `ENTRY` and `UPLOADS`. All modules here are mounted."""
