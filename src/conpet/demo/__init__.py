"""The demo: learn the intents of ten departments, one department after another."""
