"""The contract in the formats that other languages read: JSON Schema, AsyncAPI, examples, and a page made of them.

Pure: what the models and the encoders say, as documents. `documents.py` is the registry of what is written to
`contracts/`; nothing here reads a file, and nothing that runs the service needs it.
"""
