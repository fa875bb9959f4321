"""Answering over HTTP with what was trained: what serve.py is made of. Nothing here imports torch.

app          the addresses, and one shape for all errors
limits       how large a request may be, and how many may wait
bodies       the bytes of a request, in memory
inputs       bytes -> raw inputs, each checked
batching     requests that wait together are computed together
weights      the weights, and new ones as soon as they are there
description  what was trained, for GET /model and for the schema of /docs
server       the port, and how signals end the server
page.html    the page for a person
"""
