"""What is written into the chart and beside it by `make manifests`, and the programs that do it."""
