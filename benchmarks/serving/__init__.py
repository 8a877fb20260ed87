"""The server under load, compared with the library and with what one would write on plain Transformers and PEFT.

python -m benchmarks.serving [--only PART ...] [--quick]

Every part of docs/serving.md is a function of parts.py. Servers, the library and the client are processes of their own
on loopback; they share the cores.
"""
