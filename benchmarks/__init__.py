"""What recyclepool costs, measured beside its peers.

``pytest benchmarks --benchmark-only`` shows times, one file a question. ``python -m benchmarks
report`` shows ratios: ours and the peer in alternation, with what each row must reach.
"""
