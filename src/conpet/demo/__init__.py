"""The demo: ten departments' intents, learned one department after another."""
