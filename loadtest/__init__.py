"""Load tests of any server with OpenAI's speech route: arrivals, clients, players, summaries and reports.

The clients use HTTP and WebSockets only, and nothing here imports the service, so other servers can be measured in the
same way. Timing of the bare engine belongs in `benchmarks`.
"""
